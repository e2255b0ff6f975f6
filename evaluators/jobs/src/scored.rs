//! An evaluator's outcome as rows of results.

use std::time::Duration;

use emberd_evaluators_kit::{Direction, Failure, Outcome, Score};
use emberd_store::jobs::{self, End, Money, Scored};
use serde_json::{Value, json};

use crate::plan::{Plan, Planned};

/// What a run step's rows are named.
pub(crate) const RUN: &str = "run";
/// The class of an evaluator whose run step failed.
const NO_OUTPUT: &str = "no_output";

/// What one evaluation took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    pub(crate) money: Money,
    pub(crate) latency: Duration,
    pub(crate) cached: bool,
}

pub(crate) fn direction(direction: Direction) -> jobs::Direction {
    match direction {
        Direction::Maximize => jobs::Direction::Maximize,
        Direction::Minimize => jobs::Direction::Minimize,
        Direction::Neutral => jobs::Direction::Neutral,
    }
}

/// The end of an item of this evaluator.
pub(crate) fn end(planned: &Planned, outcome: Outcome, mut took: Took) -> End {
    if let Some(dollars) =
        outcome.cost.as_ref().and_then(|cost| cost.usd).filter(|_| took.money == Money(0) && !took.cached)
    {
        // What a plugin says that it paid: told, not counted as the job's.
        took.money = Money((dollars * 1e9) as i64);
    }
    match outcome.result {
        Ok(scores) => {
            let mut rows: Vec<Scored> = Vec::with_capacity(scores.len());
            for score in scores {
                // The first row carries what the evaluation took.
                let took = if rows.is_empty() { took } else { Took { money: Money(0), ..took } };
                rows.push(row(planned, score, took));
            }
            End::Done { scores: rows, output: None }
        }
        Err(failure) => End::Failed { errors: errors(planned, &failure, took), dependants: Vec::new() },
    }
}

fn row(planned: &Planned, score: Score, took: Took) -> Scored {
    let name = match planned.scores.iter().find(|known| known.output == score.name) {
        Some(known) => known.name.clone(),
        None => score.name.into_owned(),
    };
    let outcome = Ok(jobs::Score {
        score: score.value,
        label: score.label.map(std::borrow::Cow::into_owned),
        explanation: score.explanation,
    });
    Scored {
        name,
        version: planned.version.clone(),
        direction: direction(score.direction),
        outcome,
        metadata: Value::Object(score.metadata),
        cost: took.money,
        latency: took.latency,
        cached: took.cached,
    }
}

fn failed(failure: &Failure) -> jobs::Failure {
    jobs::Failure { class: failure.class.name().to_owned(), message: failure.message.clone() }
}

/// A failure stands for each of the evaluator's scores.
fn errors(planned: &Planned, failure: &Failure, took: Took) -> Vec<Scored> {
    let stand_ins = planned.scores.iter().enumerate().map(|(at, score)| Scored {
        name: score.name.clone(),
        version: planned.version.clone(),
        direction: direction(score.direction),
        outcome: Err(failed(failure)),
        metadata: json!({}),
        cost: if at == 0 { took.money } else { Money(0) },
        latency: took.latency,
        cached: took.cached,
    });
    stand_ins.collect()
}

/// A run that gave an output.
pub(crate) fn ran(model: &str, finish_reason: Option<&str>, metadata: Value, took: Took) -> Scored {
    let label = Some(finish_reason.unwrap_or("done").chars().take(64).collect());
    Scored { outcome: Ok(jobs::Score { score: None, label, explanation: None }), metadata, ..run(model, took) }
}

fn run(model: &str, took: Took) -> Scored {
    Scored {
        name: RUN.to_owned(),
        version: model.to_owned(),
        direction: jobs::Direction::Neutral,
        outcome: Ok(jobs::Score::default()),
        metadata: json!({}),
        cost: took.money,
        latency: took.latency,
        cached: took.cached,
    }
}

/// A run that gave none, and what stands for its evaluators' scores.
pub(crate) fn not_run(plan: &Plan, model: &str, failure: &Failure, took: Took) -> End {
    let errors = vec![Scored { outcome: Err(failed(failure)), ..run(model, took) }];
    let mut dependants = Vec::new();
    for (at, planned) in plan.evaluators.iter().enumerate() {
        let message = format!("the prompt gave no output: {failure}");
        for mut row in self::errors(planned, failure, Took::default()) {
            row.outcome = Err(jobs::Failure { class: NO_OUTPUT.to_owned(), message: message.clone() });
            dependants.push((at as i64 + 1, row));
        }
    }
    End::Failed { errors, dependants }
}
