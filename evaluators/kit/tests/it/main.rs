//! The kit's promises, in one binary.

#![allow(clippy::unwrap_used, reason = "in a test that is how one fails")]

mod builtins;
mod contract;
mod docs;
mod judge;
mod mapping;
mod properties;
mod references;
mod stats;
mod wire;

use emberd_evaluators_kit::{Class, Coded, Example, Outcome, Score, Spec, build};
use futures_util::FutureExt as _;
use serde_json::Value;

/// The result of a future that has nothing to wait for.
#[track_caller]
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing here waits")
}

/// A spec of a name and a configuration.
pub(crate) fn spec(name: &str, config: Value) -> Spec {
    let Value::Object(config) = config else { panic!("a config is an object") };
    Spec { name: name.to_owned(), config, ..Spec::default() }
}

/// A built-in.
#[track_caller]
pub(crate) fn built(name: &str, config: Value) -> Coded {
    build(&spec(name, config)).unwrap_or_else(|error| panic!("{error}"))
}

/// An example out of JSON.
#[track_caller]
pub(crate) fn example(json: Value) -> Example {
    serde_json::from_value(json).unwrap()
}

/// The one score of an outcome.
#[track_caller]
pub(crate) fn only(outcome: Outcome) -> Score {
    let scores = outcome.result.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(scores.len(), 1);
    scores.into_iter().next().unwrap()
}

/// The class of an outcome that failed.
#[track_caller]
pub(crate) fn class(outcome: &Outcome) -> Class {
    match &outcome.result {
        Ok(scores) => panic!("scored: {scores:?}"),
        Err(failure) => failure.class,
    }
}
