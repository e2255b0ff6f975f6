//! Writes `src/generated` from the `.proto` files, and checks that what is checked in is what they give.
//!
//! `EMBERD_GENERATE=1 cargo test -p emberd-proto` writes it. No protoc is needed: protox compiles the files in Rust.

use std::path::Path;

const FILES: [&str; 1] = ["emberd/evaluator/v1/evaluator.proto"];

#[test]
fn the_checked_in_code_is_what_the_proto_files_give() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = root.join("src/generated");
    let fresh = std::env::temp_dir().join(format!("emberd-proto-{}", std::process::id()));
    std::fs::create_dir_all(&fresh).unwrap();

    let files = protox::compile(FILES, [root]).unwrap();
    tonic_prost_build::configure().out_dir(&fresh).compile_fds(files).unwrap();

    let name = "emberd.evaluator.v1.rs";
    let generated = std::fs::read_to_string(fresh.join(name)).unwrap();
    std::fs::remove_dir_all(&fresh).unwrap();
    if std::env::var_os("EMBERD_GENERATE").is_some() {
        std::fs::create_dir_all(&checked_in).unwrap();
        std::fs::write(checked_in.join(name), &generated).unwrap();
    }
    let kept = std::fs::read_to_string(checked_in.join(name)).unwrap();
    assert!(kept == generated, "src/generated is stale: run EMBERD_GENERATE=1 cargo test -p emberd-proto");
}
