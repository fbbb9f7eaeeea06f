//! Compiles `proto/` into Rust, client and server (no protoc is needed).

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(
        [
            "cluster.proto",
            "common.proto",
            "machine.proto",
            "storage.proto",
            "time.proto",
            "config.proto",
            "cosi.proto",
            "meta.proto",
        ],
        ["proto"],
    )?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
