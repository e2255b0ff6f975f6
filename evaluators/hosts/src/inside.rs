//! What fuzz targets reach of this room's inside: what a plugin says, from its bytes to what anybody else sees of it.
//!
//! Not an interface: nothing but `fuzz/` may use it.

use emberd_evaluators_kit::Outcome;
use emberd_evaluators_kit::contract::Description;
use emberd_proto::evaluator::v1 as pb;

use crate::child::lines::Lines;
use crate::ledger::Ledger;
use crate::{catalog, wasm};

/// A module's description, read and checked.
pub fn described(bytes: &[u8]) -> Result<Vec<Description>, String> {
    let told = wasm::json::description(bytes)?;
    Ok(catalog::read("plugin", told)?.into_values().collect())
}

/// Places of examples with their outcomes, and the places that are left without one.
pub type Answered = (Vec<(usize, Outcome)>, Vec<usize>);

/// A module's answer for so many examples: what becomes of each, and which are left.
pub fn answered(description: &Description, examples: usize, bytes: &[u8]) -> Result<Answered, String> {
    let told = wasm::json::response(bytes)?;
    let mut ledger = Ledger::new(description, 0..examples);
    let outcomes = ledger.take(told);
    Ok((outcomes, ledger.rest()))
}

/// What a module is asked: an example whose field and configuration are these texts.
pub fn asked(config: &str, field: &str) -> Result<String, String> {
    let fields_json = [("output".to_owned(), field.to_owned())].into();
    let example = pb::Example { id: 1, fields_json, ..pb::Example::default() };
    let request =
        pb::EvaluateRequest { evaluator: "metric".to_owned(), config_json: config.to_owned(), examples: vec![example] };
    wasm::json::request(&request)
}

/// The lines of these pieces of what a process writes.
pub fn lines<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut lines, mut told) = (Lines::default(), Vec::new());
    pieces.for_each(|piece| lines.take(piece, |line| told.push(line)));
    lines.take(b"\n", |line| told.push(line));
    told
}
