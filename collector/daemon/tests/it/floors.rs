//! The rooms' borders, read from their manifests: imports go to a lower floor only, never sideways.

use std::collections::BTreeMap;
use std::path::Path;

/// The floor each room stands on, as ARCHITECTURE.md draws it.
const FLOORS: [(&str, u8); 19] = [
    ("emberd-model", 0),
    ("emberd-proto", 0),
    ("emberd-log", 1),
    ("emberd-store", 1),
    ("emberd-phoenix", 1),
    ("emberd-identity", 1),
    ("emberd-cache", 1),
    ("emberd-archive", 1),
    ("emberd-evaluators-kit", 1),
    ("emberd-evaluators-datasets", 1),
    ("emberd-graph", 2),
    ("emberd-evaluators-hosts", 2),
    ("emberd-evaluators-jobs", 3),
    ("emberd-intake", 2),
    ("emberd-consumers", 2),
    ("emberd-api", 4),
    ("emberd-daemon", 5),
    ("emberd-benches", 6),
    ("emberd-fuzz", 6),
];

#[test]
fn imports_go_to_a_lower_floor_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let floors: BTreeMap<&str, u8> = FLOORS.into();
    let workspace: toml::Table = toml::from_str(&std::fs::read_to_string(root.join("Cargo.toml")).unwrap()).unwrap();
    let mut seen = 0;
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        let manifest = root.join(member.as_str().unwrap()).join("Cargo.toml");
        let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
        let name = manifest["package"]["name"].as_str().unwrap();
        let floor =
            floors.get(name).unwrap_or_else(|| panic!("{name} has no floor: draw it in ARCHITECTURE.md, then here"));
        for dependency in manifest["dependencies"].as_table().unwrap().keys() {
            if let Some(below) = floors.get(dependency.as_str()) {
                assert!(below < floor, "{name} (floor {floor}) imports {dependency} (floor {below})");
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "only {seen} borders found: is this test reading the right files?");
}
