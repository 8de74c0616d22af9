//! Generates messages and services from the `.proto` files beside this one. `protox` parses them, so no `protoc` is needed.
//!
//! Maps become `BTreeMap`s, so that every iteration and encoding has one order; `bytes` fields become `Bytes`, so that
//! content is shared rather than copied.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "broker/protocol/protocol.proto",
        "consumer/recoverylog/recorded_op.proto",
        "consumer/protocol/protocol.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]).bytes(["."]);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
