//! Generates messages and services from the `.proto` files beside this one. `protox` parses them, so no `protoc` is needed.
//!
//! Maps become `BTreeMap`s, so that every iteration and encoding has one order; `bytes` fields become `Bytes`, so that
//! content is shared rather than copied. The descriptors are kept beside the code, for whoever prints messages.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "broker/protocol/protocol.proto",
        "consumer/recoverylog/recorded_op.proto",
        "consumer/protocol/protocol.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).open_files(files)?;
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]).bytes(["."]);
    tonic_prost_build::configure().compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
