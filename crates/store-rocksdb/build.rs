//! Compiles the file-system observer against the headers of the RocksDB that librocksdb-sys links.

fn main() {
    let root = std::env::var_os("DEP_ROCKSDB_CARGO_MANIFEST_DIR")
        .expect("librocksdb-sys tells its dependents where its sources are");
    let include = std::path::Path::new(&root).join("rocksdb").join("include");
    println!("cargo:rerun-if-changed=src/observed_env.cc");
    println!("cargo:rerun-if-changed=src/observed_env.h");
    println!("cargo:rerun-if-env-changed=CXX");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .include(include)
        // What the headers look at, as librocksdb-sys defines it.
        .define("NDEBUG", "1")
        .define("OS_LINUX", None)
        .define("ROCKSDB_PLATFORM_POSIX", None)
        .define("ROCKSDB_LIB_IO_POSIX", None)
        .define("HAVE_ALIGNED_NEW", None)
        .flag("-include")
        .flag("cstdint")
        .flag("-Wno-unused-parameter")
        .file("src/observed_env.cc")
        .compile("courant_observed_env");
}
