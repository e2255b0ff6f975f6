//! Items in hand: taken, held for longer, given back.

use std::collections::HashMap;
use std::time::Duration;

use emberd_model::UnixNanos;
use uuid::Uuid;

use super::{ItemKey, lease_end};
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, Line, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// Ranges, and targets, in one taking.
const TAKE_MAX: u32 = 10_000;
/// A range that was taken so often and did not end is halved with each further taking, so that a target that ends emberd each time
/// stands alone in the end, and takes no other along.
const WHOLE_TAKINGS: i64 = 2;

/// Which items are wanted.
#[derive(Clone, Debug)]
pub struct Want {
    /// Of this job.
    pub job: Uuid,
    /// Of this step.
    pub step: i64,
    /// So many targets at most, kept within 10 000; where the first range alone has more, it.
    pub limit: u32,
    /// So many ranges at most, kept within 10 000.
    pub ranges: u32,
    /// Who takes them, for [`Store::release`].
    pub owner: String,
    /// How long they are the owner's.
    pub lease: Duration,
    /// The time of the call.
    pub now: UnixNanos,
}

/// An item in hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Leased {
    /// Which.
    pub key: ItemKey,
    /// What the lease is proven by.
    pub fence: i64,
    /// How often it was taken, this time included; not counting what was given back.
    pub attempt: i64,
    /// Its targets, by number and without a gap; seldom more than one.
    pub targets: Vec<Given>,
}

/// A target in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The example's id, or the trace's.
    pub target: String,
    /// What is judged: JSON.
    pub body: String,
    /// What the run step gave: JSON.
    pub output: Option<String>,
}

/// An item and the fence under which it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub key: ItemKey,
    /// As [`Leased::fence`].
    pub fence: i64,
}

impl Store {
    /// Takes items of an open job that wait and are due, and those whose lease is over, longest due first.
    pub async fn take(&self, want: Want) -> Result<Vec<Leased>, Error> {
        Ok(self.run(Take(want)).await?)
    }

    /// Holds items for longer; says of each, in order, whether it was still held.
    pub async fn extend(&self, held: Vec<Holding>, lease: Duration, now: UnixNanos) -> Result<Vec<bool>, Error> {
        Ok(self.run(Extend { held, until: lease_end(now, lease) }).await?)
    }

    /// Gives back everything that this owner holds, at a clean stop: that taking does not count as an attempt. Gives of how many targets.
    pub async fn release(&self, owner: &str) -> Result<u64, Error> {
        Ok(self.run(Release(owner.to_owned())).await?)
    }
}

struct Take(Want);

/// Of what may be taken, in order, as many ranges and targets as are wanted.
macro_rules! picked {
    () => {
        "both_ AS (
         SELECT 0 AS turn, since, nr, size, at FROM expired UNION ALL SELECT 1, since, nr, size, at FROM due
     ), picked AS (
         SELECT at FROM (SELECT at, size, row_number() OVER turns AS place, sum(size) OVER turns AS targets FROM both_
             WINDOW turns AS (ORDER BY turn, since, nr)) AS numbered
         WHERE place <= $4 AND (targets <= $7::bigint OR place = 1)
     )
     UPDATE emberd.job_items SET state = 'leased', owner = $5, lease_until = $6, fence = fence + 1, attempts = attempts + 1"
    };
}

/// In one statement, so that takers do not wait for each other. By `ctid`, which leaves no other way from the picked to their rows.
const TAKE_POSTGRES: &str = concat!(
    "WITH expired AS (
         SELECT ctid AS at, lease_until AS since, nr, upto - nr + 1 AS size FROM emberd.job_items
         WHERE job = $1 AND step = $2 AND state = 'leased' AND lease_until <= $3
         ORDER BY lease_until, nr LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED
     ), due AS (
         SELECT ctid AS at, due_at AS since, nr, upto - nr + 1 AS size FROM emberd.job_items
         WHERE job = $1 AND step = $2 AND state = 'waiting' AND due_at <= $3
         ORDER BY due_at, nr LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED
     ), ",
    picked!(),
    " WHERE ctid = ANY(ARRAY(SELECT at FROM picked)) RETURNING nr, upto, fence, attempts"
);

/// The same where one writer holds every lock.
const TAKE_SQLITE: &str = concat!(
    "WITH expired AS (
         SELECT nr AS at, lease_until AS since, nr, upto - nr + 1 AS size FROM emberd.job_items
         WHERE job = $1 AND step = $2 AND state = 'leased' AND lease_until <= $3 ORDER BY lease_until, nr LIMIT $4
     ), due AS (
         SELECT nr AS at, due_at AS since, nr, upto - nr + 1 AS size FROM emberd.job_items
         WHERE job = $1 AND step = $2 AND state = 'waiting' AND due_at <= $3 ORDER BY due_at, nr LIMIT $4
     ), ",
    picked!(),
    " WHERE job = $1 AND step = $2 AND nr IN (SELECT at FROM picked) RETURNING nr, upto, fence, attempts"
);

/// A range that was taken.
#[derive(Clone, Copy)]
struct Range {
    nr: i64,
    upto: i64,
    fence: i64,
    attempt: i64,
}

impl Work for Take {
    type Done = Vec<Leased>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Vec<Leased>, Fault> {
        let Want { job, step, limit, ranges, owner, lease, now } = &self.0;
        let open = "SELECT 1 FROM emberd.jobs WHERE id = $1 AND phase = 'open'";
        if tx.query(open, &binds![*job]).await?.is_empty() {
            return Ok(Vec::new());
        }
        let most = |limit: u32| i64::from(limit.min(TAKE_MAX));
        let until = lease_end(*now, *lease);
        let binds = binds![*job, *step, now.micros(), most(*ranges), owner, until, most(*limit)];
        let sql = if tx.is_sqlite() { TAKE_SQLITE } else { TAKE_POSTGRES };
        let mut taken = Vec::new();
        for line in tx.query(sql, &binds).await? {
            taken.push(Range { nr: line.int(0)?, upto: line.int(1)?, fence: line.int(2)?, attempt: line.int(3)? });
        }
        taken.sort_by_key(|range| range.nr);
        for range in taken.iter_mut().filter(|range| range.upto > range.nr && range.attempt > WHOLE_TAKINGS) {
            self.halve(tx, range).await?;
        }
        let mut given = self.given(tx, &taken).await?;
        let mut leased = Vec::with_capacity(taken.len());
        for Range { nr, upto, fence, attempt } in taken {
            let targets: Vec<Given> = (nr..=upto).map_while(|nr| given.remove(&nr)).collect();
            leased.push(Leased { key: ItemKey { job: *job, nr, step: *step }, fence, attempt, targets });
        }
        Ok(leased)
    }
}

impl Take {
    /// Leaves the second half of a range to whoever takes next, whole once more: it may be the first one that does not end.
    async fn halve<T: Tx>(&self, tx: &mut T, range: &mut Range) -> Result<(), Fault> {
        let Want { job, step, .. } = &self.0;
        let Range { nr, upto, fence, .. } = *range;
        let half = nr + (upto - nr) / 2;
        let sql = "UPDATE emberd.job_items SET upto = $4 WHERE job = $1 AND nr = $2 AND step = $3";
        tx.execute(sql, &binds![*job, nr, *step, half]).await?;
        let sql = "INSERT INTO emberd.job_items (job, nr, upto, step, state, attempts, fence)
             VALUES ($1, $2, $3, $4, 'waiting', $5, $6)";
        tx.execute(sql, &binds![*job, half + 1, upto, *step, WHOLE_TAKINGS - 1, fence]).await?;
        range.upto = half;
        Ok(())
    }

    /// The targets of these ranges, which are in order: at one go where they are next to each other. By number, or PostgreSQL might go
    /// through the index of their names, over all of the job's.
    async fn given<T: Tx>(&self, tx: &mut T, ranges: &[Range]) -> Result<HashMap<i64, Given>, Fault> {
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(HashMap::new()) };
        let job = self.0.job;
        let lines = if ranges.windows(2).all(|two| two[0].upto + 1 == two[1].nr) {
            let sql = "SELECT nr, target, body, output FROM emberd.job_targets WHERE job = $1 AND nr >= $2 AND nr <= $3 ORDER BY nr";
            tx.query(sql, &binds![job, first.nr, last.upto]).await?
        } else {
            let numbers: Vec<i64> = ranges.iter().flat_map(|range| range.nr..=range.upto).collect();
            let sql = "SELECT nr, target, body, output FROM emberd.job_targets WHERE job = $1 AND nr = ANY($2)";
            tx.query(sql, &binds![job, numbers]).await?
        };
        let read = |mut line: Line| {
            let nr = line.int(0)?;
            let (target, body, output) = (line.take_text(1)?, line.take_text(2)?, line.maybe_text(3)?);
            Ok((nr, Given { target, body, output }))
        };
        lines.into_iter().map(read).collect()
    }
}

/// The columns of an item under its fence.
pub(super) const HELD: [&str; 4] = ["job_", "nr_", "step_", "fence_"];

pub(super) fn held_binds(key: ItemKey, fence: i64) -> [Bind<'static>; 4] {
    binds![key.job, key.nr, key.step, fence]
}

struct Extend {
    held: Vec<Holding>,
    until: i64,
}

impl Work for Extend {
    type Done = Vec<bool>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Vec<bool>, Fault> {
        let mut sorted = self.held.clone();
        sorted.sort_by_key(|held| held.key);
        let rows: Vec<Vec<Bind<'_>>> = sorted
            .iter()
            .map(|held| held_binds(held.key, held.fence).into_iter().chain(binds![self.until]).collect())
            .collect();
        let columns: Vec<&str> = HELD.into_iter().chain(["until_"]).collect();
        let sql = "UPDATE emberd.job_items SET lease_until = until_ FROM {rows}
             WHERE job = job_ AND nr = nr_ AND step = step_ AND fence = fence_ AND state = 'leased'
             RETURNING job, nr, step, fence";
        let mut still = std::collections::HashSet::new();
        for line in tx.each(sql, &columns, &rows).await? {
            still.insert((ItemKey { job: line.id(0)?, nr: line.int(1)?, step: line.int(2)? }, line.int(3)?));
        }
        Ok(self.held.iter().map(|held| still.contains(&(held.key, held.fence))).collect())
    }
}

/// How many targets ranges have, where that is what a statement returned of each.
pub(super) fn sum(lines: &[Line]) -> Result<i64, Fault> {
    lines.iter().map(|line| line.int(0)).sum()
}

struct Release(String);

impl Work for Release {
    type Done = u64;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<u64, Fault> {
        let owner = &self.0;
        let sql = "SELECT DISTINCT job FROM emberd.job_items WHERE state = 'leased' AND owner = $1";
        let jobs: Vec<Uuid> =
            tx.query(sql, &binds![owner]).await?.iter().map(|line| line.id(0)).collect::<Result<_, _>>()?;
        let sql = "SELECT id, phase FROM emberd.jobs WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
        let mut released = 0;
        for line in tx.query(sql, &binds![jobs]).await? {
            let (job, is_open) = (line.id(0)?, line.text(1)? != "closed");
            let state = if is_open { "waiting" } else { "cancelled" };
            let sql = "UPDATE emberd.job_items SET state = $3, owner = NULL, lease_until = 0, attempts = attempts - 1
                 WHERE job = $1 AND state = 'leased' AND owner = $2 RETURNING upto - nr + 1";
            let targets = sum(&tx.query(sql, &binds![job, owner, state]).await?)?;
            released += targets as u64;
            if !is_open {
                let sql = "UPDATE emberd.jobs SET items_left = items_left - $2 WHERE id = $1";
                tx.execute(sql, &binds![job, targets]).await?;
            }
        }
        let sql = "UPDATE emberd.jobs SET owner = NULL, lease_until = 0 WHERE phase <> 'closed' AND owner = $1";
        tx.execute(sql, &binds![owner]).await?;
        Ok(released)
    }
}
