//! Generates messages and the service from `word_count.proto`. Messages of the broker protocol are those of `proto`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=word_count.proto");
    let mut compiler = protox::Compiler::new([".", "../../proto"])?;
    compiler.include_imports(true).open_files(["word_count.proto"])?;
    let mut config = prost_build::Config::new();
    config.extern_path(".protocol", "::proto::protocol");
    tonic_prost_build::configure().compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
