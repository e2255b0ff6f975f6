//! Results as they are read, and how far a job is.

use std::time::Duration;

use emberd_model::UnixNanos;
use uuid::Uuid;

use super::scores::{COLUMNS, Direction, Failure, Score, Scored};
use crate::error::Error;
use crate::fault::Fault;
use crate::library::Page;
use crate::sql::{Ask, Line, binds};
use crate::store::Store;

/// Results in an answer.
const RESULTS_MAX: u32 = 10_000;

/// A result as it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredResult {
    /// The target's number.
    pub nr: i64,
    /// The step that gave it.
    pub step: i64,
    /// The example's id, or the trace's.
    pub target: String,
    /// The score, or what went wrong.
    pub scored: Scored,
    /// When; microseconds are kept.
    pub at: UnixNanos,
}

/// What of a result its job's summary needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Tallied {
    /// The target's number.
    pub nr: i64,
    /// The step that gave it.
    pub step: i64,
    /// The score's name.
    pub name: String,
    /// Which way is better.
    pub direction: Direction,
    /// The score without its explanation, or what went wrong.
    pub outcome: Result<Score, Failure>,
    /// How long it took.
    pub latency: Duration,
    /// Whether the answer was there already.
    pub cached: bool,
}

/// Which results; all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultFilter {
    /// Of this step.
    pub step: Option<i64>,
    /// Of this name.
    pub name: Option<String>,
    /// Only errors.
    pub only_errors: bool,
}

/// How many items are how far; of a range, each of its targets counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Wait for their run step.
    pub blocked: i64,
    /// Wait to be taken.
    pub waiting: i64,
    /// In hand.
    pub leased: i64,
    /// Over, with results.
    pub done: i64,
    /// Over, with errors.
    pub failed: i64,
    /// Over, without anything.
    pub cancelled: i64,
}

impl Store {
    /// How far a job is; counted over its items, some 10 ms for 100 000 that are no ranges.
    pub async fn progress(&self, job: Uuid) -> Result<Progress, Error> {
        let sql = "SELECT state, sum(upto - nr + 1)::bigint FROM emberd.job_items WHERE job = $1 GROUP BY state";
        let mut progress = Progress::default();
        for line in self.lines(sql, &binds![job]).await? {
            let count = match &*line.text(0)? {
                "blocked" => &mut progress.blocked,
                "waiting" => &mut progress.waiting,
                "leased" => &mut progress.leased,
                "done" => &mut progress.done,
                "failed" => &mut progress.failed,
                _ => &mut progress.cancelled,
            };
            *count = line.int(1)?;
        }
        Ok(progress)
    }

    /// What a summary needs of results, by target, step and name, from after that one; `limit` is kept within 1 to 10 000. It reads all of
    /// them stretch by stretch, and never holds more than one.
    pub async fn tally(&self, job: Uuid, after: Option<&Tallied>, limit: u32) -> Result<Vec<Tallied>, Error> {
        let limit = i64::from(limit.clamp(1, RESULTS_MAX));
        let sql = "SELECT nr, step, name, direction, score, label, error_class, error, latency_us, cached
             FROM emberd.job_results WHERE job = $1 AND (nr, step, name) > ($2, $3, $4) ORDER BY nr, step, name LIMIT $5";
        let (nr, step, name) = after.map_or((-1, -1, ""), |last| (last.nr, last.step, &*last.name));
        let lines = self.bulk(sql, binds![job, nr, step, name.to_owned(), limit].into()).await?;
        Ok(lines.into_iter().map(tallied).collect::<Result<_, Fault>>()?)
    }

    /// Results by target, step and name, from after `cursor`; `limit` is kept within 1 to 10 000.
    pub async fn results(
        &self,
        job: Uuid,
        filter: &ResultFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<StoredResult>, Error> {
        let limit = limit.clamp(1, RESULTS_MAX) as usize;
        let mut ask = Ask::default();
        // The page before its targets' names: joined first, PostgreSQL would look for each target of the job in each page.
        let columns = format!(
            "SELECT r.nr, r.step, t.target, r.at, r.latency_us, r.cached, {COLUMNS} FROM (
                 SELECT job, nr, step, at, latency_us, cached, {COLUMNS} FROM emberd.job_results WHERE job = ?"
        );
        ask.push(&columns, binds![job]);
        if let Some((nr, step, name)) = cursor.map(place).transpose()? {
            ask.push(" AND (nr, step, name) > (?, ?, ?)", binds![nr, step, name]);
        }
        if let Some(step) = filter.step {
            ask.push(" AND step = ?", binds![step]);
        }
        if let Some(name) = &filter.name {
            ask.push(" AND name = ?", binds![name]);
        }
        if filter.only_errors {
            ask.push(" AND error_class IS NOT NULL", []);
        }
        ask.push(" ORDER BY nr, step, name LIMIT ?", binds![limit as i64 + 1]);
        ask.push(") AS r JOIN emberd.job_targets t ON t.job = r.job AND t.nr = r.nr ORDER BY r.nr, r.step, r.name", []);
        let lines = self.lines(&ask.sql, &ask.binds).await?;
        let mut data = lines.iter().map(read).collect::<Result<Vec<_>, Fault>>()?;
        let more = data.len() > limit;
        data.truncate(limit);
        let last = data.last().filter(|_| more);
        let next_cursor = last.map(|last| format!("{}_{}_{}", last.nr, last.step, last.scored.name));
        Ok(Page { data, next_cursor })
    }
}

fn tallied(mut line: Line) -> Result<Tallied, Fault> {
    let direction = line.text(3)?;
    let outcome = match line.maybe_text(6)? {
        Some(class) => Err(Failure { class, message: line.take_text(7)? }),
        None => Ok(Score { score: line.maybe_real(4)?, label: line.maybe_text(5)?, explanation: None }),
    };
    Ok(Tallied {
        nr: line.int(0)?,
        step: line.int(1)?,
        name: line.take_text(2)?,
        direction: Direction::parse(&direction).ok_or_else(|| Fault::damaged("the direction", &direction))?,
        outcome,
        latency: Duration::from_micros(line.int(8)?.max(0) as u64),
        cached: line.bool(9)?,
    })
}

fn place(cursor: &str) -> Result<(i64, i64, &str), Error> {
    let mut parts = cursor.splitn(3, '_');
    let mut next = || parts.next().ok_or(Error::BadCursor);
    let (nr, step, name) = (next()?, next()?, next()?);
    let number = |text: &str| text.parse().map_err(|_| Error::BadCursor);
    Ok((number(nr)?, number(step)?, name))
}

fn read(line: &Line) -> Result<StoredResult, Fault> {
    let mut scored = Scored::read(line, 6)?;
    scored.latency = Duration::from_micros(line.int(4)?.max(0) as u64);
    scored.cached = line.bool(5)?;
    let at = UnixNanos((line.int(3)?.max(0) as u64).saturating_mul(1_000));
    Ok(StoredResult { nr: line.int(0)?, step: line.int(1)?, target: line.text(2)?, scored, at })
}
