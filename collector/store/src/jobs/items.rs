//! Items in hand: taken, held for longer, given back.

use std::collections::HashMap;
use std::time::Duration;

use emberd_model::UnixNanos;
use serde_json::Value;
use uuid::Uuid;

use super::{ItemKey, lease_end};
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// Items in one taking.
const TAKE_MAX: u32 = 10_000;

/// Which items are wanted.
#[derive(Clone, Debug)]
pub struct Want {
    /// Of this job.
    pub job: Uuid,
    /// Of this step.
    pub step: i64,
    /// So many at most; kept within 10 000.
    pub limit: u32,
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
    /// The example's id, or the trace's.
    pub target: String,
    /// What is judged.
    pub body: Value,
    /// What the run step gave.
    pub output: Option<Value>,
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

    /// Gives back everything that this owner holds, at a clean stop: that taking does not count as an attempt. Gives how many items.
    pub async fn release(&self, owner: &str) -> Result<u64, Error> {
        Ok(self.run(Release(owner.to_owned())).await?)
    }
}

struct Take(Want);

/// In one statement, so that takers do not wait for each other. By `ctid`, which leaves no other way from the picked to their rows.
const TAKE_POSTGRES: &str = "WITH expired AS (
         SELECT ctid AS at FROM emberd.job_items
         WHERE job = $1 AND step = $2 AND state = 'leased' AND lease_until <= $3
         ORDER BY lease_until, nr LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED
     ), due AS (
         SELECT ctid AS at FROM emberd.job_items
         WHERE job = $1 AND step = $2 AND state = 'waiting' AND due_at <= $3
         ORDER BY due_at, nr LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED
     ), picked AS (SELECT at FROM expired UNION ALL SELECT at FROM due LIMIT $4)
     UPDATE emberd.job_items SET state = 'leased', owner = $5, lease_until = $6, fence = fence + 1, attempts = attempts + 1
     WHERE ctid = ANY(ARRAY(SELECT at FROM picked)) RETURNING nr, fence, attempts";

/// The same where one writer holds every lock.
const TAKE_SQLITE: &str = "WITH expired AS (
         SELECT nr FROM emberd.job_items WHERE job = $1 AND step = $2 AND state = 'leased' AND lease_until <= $3
         ORDER BY lease_until, nr LIMIT $4
     ), due AS (
         SELECT nr FROM emberd.job_items WHERE job = $1 AND step = $2 AND state = 'waiting' AND due_at <= $3
         ORDER BY due_at, nr LIMIT $4
     ), picked AS (SELECT nr FROM expired UNION ALL SELECT nr FROM due LIMIT $4)
     UPDATE emberd.job_items SET state = 'leased', owner = $5, lease_until = $6, fence = fence + 1, attempts = attempts + 1
     WHERE job = $1 AND step = $2 AND nr IN (SELECT nr FROM picked) RETURNING nr, fence, attempts";

impl Work for Take {
    type Done = Vec<Leased>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Vec<Leased>, Fault> {
        let Want { job, step, limit, owner, lease, now } = &self.0;
        let open = "SELECT 1 FROM emberd.jobs WHERE id = $1 AND phase = 'open'";
        if tx.query(open, &binds![*job]).await?.is_empty() {
            return Ok(Vec::new());
        }
        let limit = i64::from((*limit).min(TAKE_MAX));
        let binds = binds![*job, *step, now.micros(), limit, owner, lease_end(*now, *lease)];
        let sql = if tx.is_sqlite() { TAKE_SQLITE } else { TAKE_POSTGRES };
        let mut taken = HashMap::new();
        for line in tx.query(sql, &binds).await? {
            taken.insert(line.int(0)?, (line.int(1)?, line.int(2)?));
        }
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "SELECT nr, target, body, output FROM emberd.job_targets WHERE job = $1 AND nr = ANY($2) ORDER BY nr";
        let mut leased = Vec::with_capacity(taken.len());
        for line in tx.query(sql, &binds![*job, taken.keys().copied().collect::<Vec<i64>>()]).await? {
            let nr = line.int(0)?;
            let Some((fence, attempt)) = taken.get(&nr).copied() else { continue };
            let key = ItemKey { job: *job, nr, step: *step };
            let (target, body, output) = (line.text(1)?, line.json(2)?, line.maybe_json(3)?);
            leased.push(Leased { key, fence, attempt, target, body, output });
        }
        Ok(leased)
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
                 WHERE job = $1 AND state = 'leased' AND owner = $2";
            let items = tx.execute(sql, &binds![job, owner, state]).await?;
            released += items;
            if !is_open {
                let sql = "UPDATE emberd.jobs SET items_left = items_left - $2 WHERE id = $1";
                tx.execute(sql, &binds![job, items as i64]).await?;
            }
        }
        let sql = "UPDATE emberd.jobs SET owner = NULL, lease_until = 0 WHERE phase <> 'closed' AND owner = $1";
        tx.execute(sql, &binds![owner]).await?;
        Ok(released)
    }
}
