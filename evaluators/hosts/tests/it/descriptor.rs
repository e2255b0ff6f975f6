//! Writes the contract's descriptor for Python, and checks that the one checked in is what the `.proto` gives.
//!
//! `EMBERD_GENERATE=1 cargo test -p emberd-evaluators-hosts --test it descriptor` writes it. Python builds its messages from it when it
//! starts, so there is no generated Python that fits one version of protobuf only.

use std::path::Path;

use prost::Message as _;

#[test]
fn the_checked_in_descriptor_is_what_the_proto_file_gives() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut fresh = protox::compile(["emberd/evaluator/v1/evaluator.proto"], [root.join("proto")]).unwrap();
    for file in &mut fresh.file {
        // Comments.
        file.source_code_info = None;
    }
    let fresh = fresh.encode_to_vec();
    let path = root.join("evaluators/plugins/sdk/emberd_plugin/contract.binpb");
    if std::env::var_os("EMBERD_GENERATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let kept = std::fs::read(&path).unwrap();
    assert!(kept == fresh, "contract.binpb is stale: see the head of this test");
}
