//! A score, or why there is none: of a job's item, and of a trace by a rule.

use std::borrow::Cow;
use std::time::Duration;

use emberd_model::{TraceId, UnixNanos};
use serde_json::Value;
use uuid::Uuid;

use super::money::Money;
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, Line, binds};
use crate::store::Store;
use crate::text::without_nul;
use crate::tx::{Tx, Work};

/// Of a score's name; PostgreSQL's indexes take 2 700 bytes.
const NAME_CHARS_MAX: usize = 200;

/// Which way is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// More is better.
    #[default]
    Maximize,
    /// Less is better.
    Minimize,
    /// Neither.
    Neutral,
}

impl Direction {
    /// Its name in the tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Maximize => "maximize",
            Self::Minimize => "minimize",
            Self::Neutral => "neutral",
        }
    }

    /// The direction of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Maximize, Self::Minimize, Self::Neutral].into_iter().find(|direction| direction.as_str() == text)
    }
}

/// A score, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The score's name, of which 200 characters are kept; an item has one of each name, the first one given.
    pub name: String,
    /// The evaluator's.
    pub version: String,
    /// Which way is better.
    pub direction: Direction,
    /// The score, or what went wrong. A score that is no finite number is kept as a failure of class `not_a_number`.
    pub outcome: Result<Score, Failure>,
    /// An object.
    pub metadata: Value,
    /// What was paid for it, nano-dollars.
    pub cost: Money,
    /// How long it took; kept in microseconds.
    pub latency: Duration,
    /// Whether the answer was there already.
    pub cached: bool,
}

/// What an evaluator found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// A finite number.
    pub score: Option<f64>,
    /// A word for it.
    pub label: Option<String>,
    /// Why.
    pub explanation: Option<String>,
}

/// Why there is no score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A word to count by.
    pub class: String,
    /// What happened.
    pub message: String,
}

impl Scored {
    /// The outcome as the tables can hold it.
    fn outcome(&self) -> Result<&Score, (&str, &str)> {
        match &self.outcome {
            Ok(score) if score.score.is_some_and(|score| !score.is_finite()) => {
                Err(("not_a_number", "the score is no finite number"))
            }
            Ok(score) => Ok(score),
            Err(failure) => Err((&failure.class, &failure.message)),
        }
    }

    /// The name as the tables hold it: without NUL, and cut to what an index takes.
    fn kept_name(&self) -> Cow<'_, str> {
        let name = without_nul(&self.name);
        if name.len() <= NAME_CHARS_MAX { name } else { name.chars().take(NAME_CHARS_MAX).collect() }
    }

    /// Its [`COLUMNS`].
    pub(super) fn binds(&self) -> [Bind<'_>; 10] {
        let (score, failure) = (self.outcome().ok(), self.outcome().err());
        binds![
            self.kept_name(),
            &self.version,
            score.and_then(|score| score.score),
            score.and_then(|score| score.label.as_deref()),
            score.and_then(|score| score.explanation.as_deref()),
            self.direction.as_str(),
            &self.metadata,
            failure.map(|failure| failure.0),
            failure.map(|failure| failure.1),
            self.cost.0,
        ]
    }

    /// From its [`COLUMNS`], beginning at `at`.
    pub(super) fn read(line: &Line, at: usize) -> Result<Self, Fault> {
        let direction = line.text(at + 5)?;
        let outcome = match line.maybe_text(at + 7)? {
            Some(class) => Err(Failure { class, message: line.text(at + 8)? }),
            None => Ok(Score {
                score: line.maybe_real(at + 2)?,
                label: line.maybe_text(at + 3)?,
                explanation: line.maybe_text(at + 4)?,
            }),
        };
        Ok(Self {
            name: line.text(at)?,
            version: line.text(at + 1)?,
            direction: Direction::parse(&direction).ok_or_else(|| Fault::damaged("the direction", &direction))?,
            outcome,
            metadata: line.json(at + 6)?,
            cost: Money(line.int(at + 9)?),
            latency: Duration::ZERO,
            cached: false,
        })
    }
}

/// The columns of a score, in the order of [`Scored::binds`].
pub(super) const COLUMNS: &str =
    "name, version, score, label, explanation, direction, metadata, error_class, error, cost";
/// The same for a statement over rows.
const ROW_COLUMNS: [&str; 10] =
    ["name_", "version_", "score_", "label_", "explanation_", "direction_", "metadata_", "class_", "error_", "cost_"];
/// The same, from those rows.
const FROM_ROWS: &str =
    "name_, version_, score_, label_, explanation_, direction_, metadata_::jsonb, class_, error_, cost_";

/// What of a trace a score is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The trace.
    Trace,
    /// Its session.
    Session,
    /// A span, by its id in lower-case hex.
    Span(String),
}

impl Subject {
    fn as_str(&self) -> &str {
        match self {
            Self::Trace => "trace",
            Self::Session => "session",
            Self::Span(id) => id,
        }
    }

    fn parse(text: String) -> Self {
        match &*text {
            "trace" => Self::Trace,
            "session" => Self::Session,
            _ => Self::Span(text),
        }
    }
}

/// A score of a trace by a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceScore {
    /// Of this trace.
    pub trace: TraceId,
    /// By this rule.
    pub rule: Uuid,
    /// The decision's: a higher one replaces.
    pub epoch: i64,
    /// What of the trace.
    pub subject: Subject,
    /// The score; its latency and whether it was cached are not kept.
    pub scored: Scored,
    /// When.
    pub at: UnixNanos,
}

impl Store {
    /// Writes scores of traces. One of the same trace, rule and name is replaced by a higher epoch, and by nothing else.
    /// Gives how many were written.
    pub async fn put_trace_scores(&self, scores: Vec<TraceScore>) -> Result<u64, Error> {
        Ok(self.run(PutScores(scores)).await?)
    }

    /// Traces with scores of this time (`since` inclusive, `until` not), by their ids, from behind `after` on; `limit` at most.
    pub async fn scored_traces(
        &self,
        since: UnixNanos,
        until: UnixNanos,
        after: Option<TraceId>,
        limit: u32,
    ) -> Result<Vec<TraceId>, Error> {
        let sql = "SELECT DISTINCT trace_id FROM emberd.trace_scores
             WHERE at >= $1 AND at < $2 AND trace_id > $3 ORDER BY trace_id LIMIT $4";
        // No trace has the id of zeros.
        let after = after.unwrap_or(TraceId([0; 16]));
        let binds = binds![since.micros(), until.micros(), &after.0[..], i64::from(limit)];
        let read = |line: &Line| -> Result<TraceId, Fault> {
            let id = line.blob(0)?;
            id.try_into().map(TraceId).map_err(|_| Fault::damaged("the trace id", format!("{id:02x?}")))
        };
        let lines = self.lines(sql, &binds).await?;
        Ok(lines.iter().map(read).collect::<Result<_, Fault>>()?)
    }

    /// The scores of a trace, by rule and name.
    pub async fn trace_scores(&self, trace: TraceId) -> Result<Vec<TraceScore>, Error> {
        let sql = format!(
            "SELECT rule, epoch, subject, at, {COLUMNS} FROM emberd.trace_scores WHERE trace_id = $1 ORDER BY rule, name"
        );
        let read = |line: &Line| {
            Ok(TraceScore {
                trace,
                rule: line.id(0)?,
                epoch: line.int(1)?,
                subject: Subject::parse(line.text(2)?),
                at: UnixNanos((line.int(3)? as u64).saturating_mul(1_000)),
                scored: Scored::read(line, 4)?,
            })
        };
        let lines = self.lines(&sql, &binds![&trace.0[..]]).await?;
        Ok(lines.iter().map(read).collect::<Result<_, Fault>>()?)
    }
}

struct PutScores(Vec<TraceScore>);

impl Work for PutScores {
    type Done = u64;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<u64, Fault> {
        // One statement does not write a row twice: of each key the highest epoch, the first of equals.
        let mut last = std::collections::BTreeMap::<_, &TraceScore>::new();
        for score in &self.0 {
            let slot = last.entry((score.trace, score.rule, score.scored.kept_name())).or_insert(score);
            if score.epoch > slot.epoch {
                *slot = score;
            }
        }
        let rows: Vec<Vec<Bind<'_>>> = last
            .values()
            .map(|score| {
                let own =
                    binds![&score.trace.0[..], score.rule, score.epoch, score.subject.as_str(), score.at.micros()];
                own.into_iter().chain(score.scored.binds()).collect()
            })
            .collect();
        let columns: Vec<&str> =
            ["trace_", "rule_", "epoch_", "subject_", "at_"].into_iter().chain(ROW_COLUMNS).collect();
        let sql = format!(
            "INSERT INTO emberd.trace_scores AS s (trace_id, rule, epoch, subject, at, {COLUMNS})
             SELECT trace_, rule_, epoch_, subject_, at_, {FROM_ROWS} FROM {{rows}}
             WHERE EXISTS (SELECT 1 FROM emberd.rules WHERE id = rule_)
             ON CONFLICT (trace_id, rule, name) DO UPDATE SET epoch = excluded.epoch, version = excluded.version,
                 subject = excluded.subject, score = excluded.score, label = excluded.label,
                 explanation = excluded.explanation, direction = excluded.direction, metadata = excluded.metadata,
                 error_class = excluded.error_class, error = excluded.error, cost = excluded.cost, at = excluded.at
             WHERE excluded.epoch > s.epoch RETURNING epoch"
        );
        Ok(tx.each(&sql, &columns, &rows).await?.len() as u64)
    }
}
