//! Real exports of real SDKs.

use std::fs;
use std::path::{Path, PathBuf};

/// Where they are: `EMBERD_FIXTURES`, or beside the repository.
fn directory() -> PathBuf {
    match std::env::var_os("EMBERD_FIXTURES") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/dev"),
    }
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = directory().join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("cannot read fixture {}: {error}", path.display()))
}

/// The names of all fixtures with this ending, without it, sorted.
pub(crate) fn names(ending: &str) -> Vec<String> {
    let directory = directory();
    let entries = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("no fixtures in {} (set EMBERD_FIXTURES): {error}", directory.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no fixture in {} ends in {ending}", directory.display());
    names
}
