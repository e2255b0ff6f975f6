//! What a plugin answers, held against what it was asked and what it declared.
//!
//! Promise: an example gets one outcome, the first; a result for nobody, or a second one, reaches nobody and is counted as a lie; a plugin
//! that goes on lying is stopped listening to. What an outcome holds is finite, declared, and bounded in bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use emberd_evaluators_kit::contract::Description;
use emberd_evaluators_kit::{Class, Failure, Outcome, wire};
use emberd_proto::evaluator::v1 as pb;

use crate::catalog::LABEL_BYTES_MAX;
use crate::names::is_word;
use crate::request::id_of;

const SCORES_MAX: usize = 32;
const TOKENS_MAX: u64 = 1_000_000_000;
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Lies beyond as many as there were examples, before nobody listens any more.
const LIES_SPARE: usize = 16;

/// The examples of one call, and what became of them.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    description: &'a Description,
    waiting: BTreeMap<u64, usize>,
    asked: usize,
    /// Results that were sound.
    sound: usize,
    lies: usize,
}

impl<'a> Ledger<'a> {
    /// These places of the batch were sent.
    pub(crate) fn new(description: &'a Description, places: impl Iterator<Item = usize>) -> Self {
        let waiting: BTreeMap<u64, usize> = places.map(|at| (id_of(at), at)).collect();
        Self { description, asked: waiting.len(), waiting, sound: 0, lies: 0 }
    }

    /// Takes a message: the places and outcomes of the examples that waited for it.
    pub(crate) fn take(&mut self, response: pb::EvaluateResponse) -> Vec<(usize, Outcome)> {
        // Messages with nothing in them, for ever, are a flood too.
        self.lies += usize::from(response.results.is_empty());
        response.results.into_iter().filter_map(|result| self.take_one(result)).collect()
    }

    fn take_one(&mut self, result: pb::Result) -> Option<(usize, Outcome)> {
        let Some(at) = self.waiting.remove(&result.id) else {
            self.lies += 1;
            return None;
        };
        let outcome = outcome(result, self.description);
        match outcome {
            Ok(outcome) => {
                self.sound += 1;
                Some((at, outcome))
            }
            Err(what) => Some((at, fault(what).into())),
        }
    }

    /// Every example has its outcome.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// It sends so much that nobody asked for that nobody listens any more.
    pub(crate) fn floods(&self) -> bool {
        self.lies > self.asked + LIES_SPARE
    }

    /// What it answered was not to be used, or not only: a fault of the plugin, though its stream is whole.
    pub(crate) fn is_faulty(&self) -> bool {
        self.lies > 0 || (self.sound == 0 && self.asked > 0)
    }

    /// The places without an outcome.
    pub(crate) fn rest(&self) -> Vec<usize> {
        self.waiting.values().copied().collect()
    }
}

/// A failure that is the plugin's.
pub(crate) fn fault(what: impl Into<String>) -> Failure {
    Failure::new(Class::PluginFault, what)
}

/// A sound outcome, or what is wrong with the answer. The kit's reading of it, after what it leaves open.
fn outcome(mut result: pb::Result, description: &Description) -> Result<Outcome, String> {
    result.cost.as_ref().map_or(Ok(()), cost)?;
    let scores = match &mut result.outcome {
        Some(pb::result::Outcome::Scores(scores)) => &mut scores.scores[..],
        Some(pb::result::Outcome::Error(error)) => {
            let max = u64::try_from(RETRY_AFTER_MAX.as_millis()).unwrap_or(u64::MAX);
            error.retry_after_ms = error.retry_after_ms.map(|ms| ms.min(max));
            return Ok(wire::outcome(result, description));
        }
        None => return Err("not one of scores and error".into()),
    };
    if scores.len() > SCORES_MAX {
        return Err(format!("more than {SCORES_MAX} scores"));
    }
    for score in scores {
        declared(score, description)?;
    }
    let outcome = wire::outcome(result, description);
    match outcome.result {
        Err(failure) => Err(failure.message),
        Ok(_) => Ok(outcome),
    }
}

/// Only declared scores count. Where one is declared, it needs no name.
fn declared(score: &mut pb::Score, description: &Description) -> Result<(), String> {
    if let ("", [only]) = (score.name.as_str(), description.outputs.as_slice()) {
        score.name = only.name.to_string();
    }
    if !description.outputs.iter().any(|output| output.name == score.name) {
        let name = if is_word(&score.name) { &score.name } else { "(no name)" };
        return Err(format!("a score that was not declared: {name}"));
    }
    if score.label.as_ref().is_some_and(|label| label.len() > LABEL_BYTES_MAX) {
        return Err(format!("score {:?} has a label longer than {LABEL_BYTES_MAX} bytes", score.name));
    }
    if pb::Direction::try_from(score.direction).is_err() {
        return Err(format!("score {:?} has an unknown direction", score.name));
    }
    Ok(())
}

/// A lie about cost would use up a job's budget, or hide that it is used up.
fn cost(told: &pb::Cost) -> Result<(), String> {
    if told.prompt_tokens > TOKENS_MAX || told.completion_tokens > TOKENS_MAX {
        return Err("a cost of more than a thousand million tokens".into());
    }
    if told.usd.is_some_and(|usd| !(0.0..=1e6).contains(&usd)) {
        return Err("a cost that is no sum of money".into());
    }
    if told.model.len() > LABEL_BYTES_MAX {
        return Err("a model with too long a name".into());
    }
    Ok(())
}
