//! Evaluation jobs in the database: targets, items, leases, money, answers, results, and what Phoenix is still to be told.
//!
//! Promise: an item's results are written once, by whoever holds its lease, in one transaction with its state; money reserved and spent
//! never passes a budget, as long as no call costs more than was reserved for it; an answer once stored is found by whoever asks the same
//! again (docs/decisions/0011-evaluation.md). SQLite and PostgreSQL give the same answers.
//! Shape:    each file holds a noun, its words and the calls on [`crate::Store`] for it. A call that writes is one transaction. Locks go
//! in one order: the job's row, its items, their calls.
//! Not here: what an evaluator is, when anything is taken or retried (`emberd-jobs`).
//! Kept by:  `tests::jobs` and `tests::jobs_random` (both databases; crashes and lost leases against an oracle).

mod answers;
mod cleaning;
mod datasets;
mod ends;
mod evaluations;
mod items;
mod job;
mod money;
mod outbox;
mod paid;
mod plan;
mod results;
mod retry;
mod rules;
mod scores;
mod telling;
mod templates;
mod viewer;

use std::time::Duration;

use emberd_model::UnixNanos;
use uuid::Uuid;

pub use self::answers::Answer;
pub use self::cleaning::{Purge, Purged};
pub use self::datasets::{Dataset, DatasetChange, DatasetDeleted, DatasetType, Example, NewDataset};
pub use self::ends::{End, Ended};
pub use self::evaluations::{Evaluation, EvaluationFilter};
pub use self::items::{Given, Holding, Leased, Want};
pub use self::job::{Closed, CreateJobError, Created, HeldJob, Job, NewJob, Outcome, Phase};
pub use self::money::{CallKey, Money, Reserved, RuleReserved, Settled, Spent};
pub use self::outbox::{Outgoing, Waiting};
pub use self::plan::{NewTarget, Put, Step, Target};
pub use self::results::{Progress, ResultFilter, StoredResult, Tallied};
pub use self::rules::{Decision, NewRule, PutRuleError, Rule};
pub use self::scores::{Direction, Failure, Score, Scored, Subject, TraceScore};
pub use self::telling::RunTarget;
pub use self::templates::{NewTemplate, Template};
pub use self::viewer::Viewer;

/// A piece of work: `step` 0 (the prompt run by a model) or the plan's `step`-th evaluator, of one target or of a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    /// The evaluation's id.
    pub job: Uuid,
    /// The target's number in the job; of a range, the first one's.
    pub nr: i64,
    /// 0, or an evaluator's number, from 1.
    pub step: i64,
}

/// When a lease that begins now is over, in microseconds since 1970.
fn lease_end(now: UnixNanos, lease: Duration) -> i64 {
    now.micros().saturating_add(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX))
}
