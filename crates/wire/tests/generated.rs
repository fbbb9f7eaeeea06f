//! What is compiled of `proto/` lies in `generated/`, so that nobody who builds nodeprep has to compile a compiler first.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;

/// `UPDATE_GOLDEN=1` renews it.
#[test]
fn what_lies_there_is_what_the_protocol_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let sorted = |folder: &Path| -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| named(entry.unwrap())).collect();
        names.sort();
        names
    };
    let (proto, kept) = (folder.join("proto"), folder.join("generated"));
    let made = tempfile::tempdir().unwrap();
    let files = protox::compile(sorted(&proto), [&proto]).unwrap();
    let compiler = tonic_prost_build::configure().build_transport(false).out_dir(made.path());
    compiler.compile_fds(files).unwrap();
    let names = sorted(made.path());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        for name in &names {
            fs::copy(made.path().join(name), kept.join(name)).unwrap();
        }
    }
    assert_eq!(names, sorted(&kept));
    for name in names {
        let (one, other) = (fs::read(made.path().join(&name)).unwrap(), fs::read(kept.join(&name)).unwrap());
        assert!(one == other, "generated/{name} is not what proto/ says: renew it with UPDATE_GOLDEN=1");
    }
}
