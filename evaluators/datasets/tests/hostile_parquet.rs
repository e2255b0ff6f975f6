//! Parquet with bytes that nobody meant. The `parquet` crate's own panics are caught here, where they unwind, and counted.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]

#[allow(dead_code, reason = "shared with other tests")]
#[path = "common/mutants.rs"]
mod mutants;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use emberd_evaluators_datasets::{Source, import};
use mutants::MUTANTS;

/// One to four bytes changed, 20,000 times: an answer each time.
#[test]
fn changed_bytes_give_an_answer() {
    let (how, mut panics, mut read) = (mutants::how(), 0, 0);
    let hook = std::panic::take_hook();
    let places = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let seen = Arc::clone(&places);
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        *seen.lock().unwrap().entry(place).or_default() += 1;
    }));
    for bytes in mutants::mutants(&mutants::file()) {
        match import(Source::Bytes(Bytes::from(bytes)), &how) {
            Ok(_) => read += 1,
            Err(error) => panics += usize::from(error.to_string().ends_with("its Parquet is malformed")),
        }
    }
    std::panic::set_hook(hook);
    let places = places.lock().unwrap();
    println!("of {MUTANTS} changed files {read} were read, {panics} made the parquet crate panic: {places:#?}");
    assert!(read < MUTANTS);
    assert!(places.keys().all(|place| !place.starts_with("evaluators/")), "{places:?}");
}
