//! States that the first version wrote are still read, mean the same, and merge with what comes after.
//!
//! On disk: `states_v1.txt`, a line for each trace of the fixtures: fixture, trace, and the bytes in hex that the first version made of it.

#![allow(clippy::unwrap_used, reason = "a fixture that cannot be read fails its test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::row::row;
use emberd_model::trace::{TraceState, fold};
use emberd_model::{Batch, Flags, Offset, TraceId, UnixNanos};

fn fixtures() -> PathBuf {
    let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("EMBERD_FIXTURES").map_or(repo.join("../shared/fixtures/dev"), PathBuf::from)
}

/// The states that the fold makes of a fixture today; none if another set of fixtures is tested.
fn folded(name: &str) -> Option<BTreeMap<TraceId, TraceState>> {
    let expect = std::fs::read(fixtures().join(format!("{name}.expect.json"))).ok()?;
    let expect: serde_json::Value = serde_json::from_slice(&expect).unwrap();
    let batch = |file: &serde_json::Value| Batch {
        offset: Offset(0),
        spans: 1,
        received_at: UnixNanos(0),
        key: 0,
        flags: Flags::default(),
        body: std::fs::read(fixtures().join(file.as_str().unwrap())).unwrap().into(),
    };
    let batches: Vec<Batch> = expect["files"].as_array().unwrap().iter().map(batch).collect();
    Some(fold(&batches, &Reading::default()))
}

fn stored() -> Vec<(&'static str, TraceId, Vec<u8>)> {
    let line = |line: &'static str| {
        let mut words = line.split(' ');
        let (name, trace, hex) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let bytes = hex.as_bytes().as_chunks::<2>().0.iter();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        (name, trace.parse().unwrap(), bytes.map(byte).collect())
    };
    include_str!("states_v1.txt").lines().map(line).collect()
}

/// The row is the one that the fold of the same spans gives, before they are merged with them and after: then nothing contradicts, and no
/// span is counted twice. What the first version knew is kept when it is stored anew.
#[test]
fn states_of_the_first_version_mean_what_they_meant() {
    let prices = Prices::default();
    let states = stored();
    assert!(states.len() > 30);
    for (name, trace, bytes) in states {
        assert_eq!(bytes[0], 1);
        let old = TraceState::decode(&bytes).unwrap();
        let again = old.encode();
        assert!(again[0] == 2 && again.len() < bytes.len(), "{name}: {} of {} bytes", again.len(), bytes.len());
        assert_eq!(TraceState::decode(&again).as_ref(), Ok(&old), "{name}");
        let Some(new) = folded(name).map(|mut states| states.remove(&trace).unwrap()) else { continue };
        let mut both = old.clone();
        both.merge(&new);
        let mut the_other_way = new.clone();
        the_other_way.merge(&old);
        assert_eq!(both, the_other_way, "{name}");
        for rootless in [false, true] {
            let of = |state| row(trace, state, &prices, rootless);
            assert_eq!(of(&old), of(&new), "{name}");
            assert_eq!(of(&both), of(&new), "{name}");
        }
        assert_eq!((old.unknown_of(&new), new.unknown_of(&old)), (0, 0), "{name}");
    }
}

/// Damage to them does no harm.
#[test]
fn damaged_states_of_the_first_version_are_read_without_harm() {
    for (name, trace, bytes) in stored() {
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            for damaged in [&damaged[..], &bytes[..at]] {
                if let Ok(state) = TraceState::decode(damaged) {
                    let _ = row(trace, &state, &Prices::default(), true);
                    assert_eq!(TraceState::decode(&state.encode()), Ok(state), "{name} at {at}");
                }
            }
        }
    }
}
