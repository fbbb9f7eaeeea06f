//! Compiles `proto/` into Rust, client and server (no protoc is needed), and packs large texts.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// What `src/packed.rs` has in it.
const PACKED: [&str; 2] = ["manifests/velero/crds.yaml", "src/sandbox/kube/types.json"];

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
    PACKED.iter().try_for_each(|path| pack(path))
}

fn pack(path: &str) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={path}");
    let name = Path::new(path).file_name().ok_or("no file")?.to_string_lossy();
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&fs::read(path)?)?;
    fs::write(Path::new(&std::env::var("OUT_DIR")?).join(format!("{name}.gz")), packed.finish()?)?;
    Ok(())
}
