//! Evaluation jobs in the database: targets, items, leases, money, answers, results, and what Phoenix is still to be told.
//!
//! Promise: an item's result is written once, by whoever holds its lease, in one transaction with its state and the settling of its calls;
//! money reserved and spent never passes a budget; an answer once stored is found by whoever asks the same again
//! (docs/decisions/0011-evaluation.md). SQLite and PostgreSQL give the same answers.
//! Not here: what an evaluator is, when anything is taken or retried (`emberd-jobs`).
//! Kept by:  `tests::jobs` (both databases; random kills and lease losses against an oracle).

use std::time::Duration;

use emberd_model::{TraceId, UnixNanos};
use serde_json::Value;
use uuid::Uuid;

/// Nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(pub i64);

/// An evaluation as its row in `prompt_evaluations` begins.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    pub id: Uuid,
    pub prompt: Uuid,
    pub dataset: Option<Uuid>,
    pub subset: Option<Value>,
    pub name: String,
    pub description: Option<String>,
    /// As the caller gave it: the row's `config`.
    pub config: Value,
    pub created_by: Uuid,
    /// What `emberd-jobs` made of it: versions, mappings, settings.
    pub plan: Value,
    pub budget: Option<Money>,
    pub now: UnixNanos,
}

/// How far a job is, beside the row's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Targets are still written.
    Preparing,
    /// Items may be taken.
    Open,
    /// All items are done; the row's results are not written yet.
    Closing,
    /// Over.
    Closed,
}

/// A job as the engine sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: Uuid,
    pub phase: Phase,
    pub plan: Value,
    pub budget: Option<Money>,
    pub reserved: Money,
    pub spent: Money,
    pub created_at: UnixNanos,
}

/// A job whose targets are written, or whose results are summed up, by one emberd at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldJob {
    pub job: Job,
    pub fence: i64,
}

/// What is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub nr: i64,
    /// The example's id, or the trace's.
    pub target: String,
    pub body: Value,
}

/// A piece of work: of a target, `step` 0 (the prompt run by a model) or the plan's `step`-th evaluator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    pub job: Uuid,
    pub nr: i64,
    pub step: i64,
}

/// An item in hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Leased {
    pub key: ItemKey,
    pub fence: i64,
    /// How often it was taken, this time included.
    pub attempt: i64,
    pub target: String,
    pub body: Value,
    /// What the run step gave.
    pub output: Option<Value>,
}

/// Which items are wanted.
#[derive(Clone, Debug)]
pub struct Want {
    pub job: Uuid,
    pub step: i64,
    pub limit: u32,
    pub owner: String,
    pub lease: Duration,
    pub now: UnixNanos,
}

/// A score, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    pub name: String,
    pub version: String,
    pub direction: String,
    pub outcome: Result<Score, Failure>,
    pub metadata: Value,
    pub cost: Money,
    pub latency: Duration,
    pub cached: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    pub score: Option<f64>,
    pub label: Option<String>,
    pub explanation: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: String,
    pub message: String,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Done: these are its results (of a run step: what it gave, which unblocks the target's evaluators).
    Done { scores: Vec<Scored>, output: Option<Value> },
    /// Failed for good: these errors stand for its scores. A failed run step fails the target's evaluators with class `no_output`,
    /// each with the name that the caller gives for its step.
    Failed { errors: Vec<Scored>, dependants: Vec<(i64, Scored)> },
    /// Again, not before then.
    Again { due: UnixNanos },
}

/// One ended item under its fence.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub key: ItemKey,
    pub fence: i64,
    pub end: End,
}

/// A result as it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredResult {
    pub nr: i64,
    pub step: i64,
    pub target: String,
    pub scored: Scored,
    pub at: UnixNanos,
}

/// How many items are how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub blocked: i64,
    pub waiting: i64,
    pub leased: i64,
    pub done: i64,
    pub failed: i64,
    pub cancelled: i64,
}

/// Whether there is money for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is set aside, under this number.
    Call(i64),
    /// It would pass the budget.
    NoBudget,
    /// The lease is another's by now.
    Lost,
}

/// What Phoenix is to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    pub kind: String,
    pub key: String,
    pub body: Value,
    pub version: i64,
    pub attempts: i64,
}

/// A live rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub id: Uuid,
    pub name: String,
    pub version: i64,
    pub config: Value,
    pub is_enabled: bool,
    pub budget: Option<Money>,
    pub reserved: Money,
    pub spent: Money,
    pub created_by: Uuid,
    pub created_at: UnixNanos,
}

/// What a rule decided of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub rule: Uuid,
    pub trace: TraceId,
    pub version: i64,
    pub epoch: i64,
    /// run, filtered, sampled_out, not_ready, duplicate, superseded, budget, shed, disabled, or an error class.
    pub decision: String,
    pub detail: Option<String>,
    /// How many spans were seen.
    pub spans: i64,
    pub at: UnixNanos,
}
