//! Parquet with bytes that nobody meant. The `parquet` crate's own panics are caught here, where they unwind, and counted.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use emberd_evaluators_datasets::{Example, Format, Import, Limits, Source, Type, export, import};
use serde_json::json;

/// A generator of its own, so that a run can be told again by its seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// One to four bytes changed, 20,000 times: an answer each time.
#[test]
fn changed_bytes_give_an_answer() {
    let examples: Vec<_> = (0..40)
        .map(|index| Example {
            id: format!("id {index}"),
            input: format!("text {}", index % 7).into(),
            output: (index % 2 == 0).then(|| json!({ "n": index })),
            reference: Some(json!(index)),
            ..Example::default()
        })
        .collect();
    let mut file = Vec::new();
    export(Type::Custom, Format::Parquet, &examples, &mut file).unwrap();
    let limits = Limits { file_bytes: 1 << 20, row_bytes: 1 << 18, rows: 10_000, total_bytes: 1 << 21, faults: 10 };
    let how = Import { limits, ..Import::new(Type::Custom, Format::Parquet) };
    let (mut chance, mut panics, mut read) = (Chance(1), 0, 0);
    let hook = std::panic::take_hook();
    let places = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let seen = Arc::clone(&places);
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        *seen.lock().unwrap().entry(place).or_default() += 1;
    }));
    for _ in 0..20_000 {
        let mut bytes = file.clone();
        for _ in 0..=chance.next() % 4 {
            let at = (chance.next() % bytes.len() as u64) as usize;
            bytes[at] = chance.next() as u8;
        }
        match import(Source::Bytes(Bytes::from(bytes)), &how) {
            Ok(_) => read += 1,
            Err(error) => panics += usize::from(error.to_string().ends_with("its Parquet is malformed")),
        }
    }
    std::panic::set_hook(hook);
    let places = places.lock().unwrap();
    println!("of 20000 changed files {read} were read, {panics} made the parquet crate panic: {places:#?}");
    assert!(read < 20_000);

    assert!(places.keys().all(|place| !place.starts_with("evaluators/")), "{places:?}");
}
