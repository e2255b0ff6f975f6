//! What a crash leaves behind, and what is too old to keep: a bounded batch in each call.

use std::collections::BTreeMap;

use emberd_model::UnixNanos;
use uuid::Uuid;

use super::items::sum;
use super::money::{Money, Spent};
use super::paid::{JOB, RULE, settle};
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Line, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// Rows in a batch at most.
const BATCH_MAX: u32 = 10_000;

/// What is too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purge {
    /// Answers stored before; none to keep all. Whoever asks the same again pays again.
    pub answers_before: Option<UnixNanos>,
    /// Decisions, and settled calls of rules, made before; none to keep all.
    pub decisions_before: Option<UnixNanos>,
}

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Answers.
    pub answers: u64,
    /// Decisions.
    pub decisions: u64,
    /// Settled calls of rules.
    pub calls: u64,
    /// Whether to call again.
    pub more: bool,
}

impl Store {
    /// Settles, at the price reserved, calls that were cut off: the item is no longer leased as it was then, or the lease is over; the
    /// rule's call took too long. Items of closed jobs whose lease is over become cancelled. `limit` is kept within 10 000. Gives how many
    /// calls; call again while it is `limit`.
    pub async fn release_stale(&self, limit: u32, now: UnixNanos) -> Result<u64, Error> {
        Ok(self.run(ReleaseStale { limit: i64::from(limit.min(BATCH_MAX)), now: now.micros() }).await?)
    }

    /// Deletes what is too old, `limit` (kept within 10 000) rows of each kind at most.
    pub async fn purge(&self, purge: Purge, limit: u32) -> Result<Purged, Error> {
        Ok(self.run(PurgeOld(purge, i64::from(limit.min(BATCH_MAX)))).await?)
    }
}

struct ReleaseStale {
    limit: i64,
    now: i64,
}

impl Work for ReleaseStale {
    type Done = u64;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<u64, Fault> {
        self.items(tx).await?;
        Ok(self.job_calls(tx).await? + self.rule_calls(tx).await?)
    }
}

impl ReleaseStale {
    /// Of jobs that were closed while they were in hand.
    async fn items<T: Tx>(&self, tx: &mut T) -> Result<(), Fault> {
        let sql = "SELECT DISTINCT i.job FROM emberd.job_items i WHERE i.state = 'leased' AND i.lease_until <= $1
             AND EXISTS (SELECT 1 FROM emberd.jobs j WHERE j.id = i.job AND j.phase = 'closed') ORDER BY i.job LIMIT 100";
        for line in tx.query(sql, &binds![self.now]).await? {
            let job = line.id(0)?;
            let closed = "SELECT 1 FROM emberd.jobs WHERE id = $1 AND phase = 'closed' FOR NO KEY UPDATE";
            if tx.query(closed, &binds![job]).await?.is_empty() {
                continue;
            }
            let sql = "UPDATE emberd.job_items SET state = 'cancelled', owner = NULL, lease_until = 0
                 WHERE job = $1 AND state = 'leased' AND lease_until <= $2 RETURNING upto - nr + 1";
            let targets = sum(&tx.query(sql, &binds![job, self.now]).await?)?;
            let sql = "UPDATE emberd.jobs SET items_left = items_left - $2 WHERE id = $1";
            tx.execute(sql, &binds![job, targets]).await?;
        }
        Ok(())
    }

    async fn job_calls<T: Tx>(&self, tx: &mut T) -> Result<u64, Fault> {
        let sql = "SELECT c.job, c.nr, c.step, c.call FROM emberd.job_calls c WHERE c.spent IS NULL
             AND NOT EXISTS (SELECT 1 FROM emberd.job_items i WHERE i.job = c.job AND i.nr = c.nr AND i.step = c.step
                 AND i.state = 'leased' AND i.fence = c.fence AND i.lease_until > $1)
             ORDER BY c.job, c.nr, c.step, c.call LIMIT $2";
        let mut stale: BTreeMap<Uuid, Vec<Line>> = BTreeMap::new();
        for line in tx.query(sql, &binds![self.now, self.limit]).await? {
            stale.entry(line.id(0)?).or_default().push(line);
        }
        let mut settled = 0;
        for (job, calls) in stale {
            tx.query(JOB.lock, &binds![job]).await?;
            for call in calls {
                // Settled meanwhile, with its true price, or extended: leave it.
                let sql = "UPDATE emberd.job_calls SET spent = reserved
                     WHERE job = $1 AND nr = $2 AND step = $3 AND call = $4 AND spent IS NULL RETURNING reserved";
                let binds = binds![job, call.int(1)?, call.int(2)?, call.int(3)?];
                if let Some(line) = tx.query(sql, &binds).await?.pop() {
                    charge(tx, JOB, job, line.int(0)?).await?;
                    settled += 1;
                }
            }
        }
        Ok(settled)
    }

    async fn rule_calls<T: Tx>(&self, tx: &mut T) -> Result<u64, Fault> {
        let sql =
            "SELECT rule, call FROM emberd.rule_calls WHERE spent IS NULL AND until <= $1 ORDER BY until LIMIT $2";
        let mut stale: BTreeMap<Uuid, Vec<i64>> = BTreeMap::new();
        for line in tx.query(sql, &binds![self.now, self.limit]).await? {
            stale.entry(line.id(0)?).or_default().push(line.int(1)?);
        }
        let mut settled = 0;
        for (rule, calls) in stale {
            tx.query(RULE.lock, &binds![rule]).await?;
            for call in calls {
                let sql =
                    "UPDATE emberd.rule_calls SET spent = reserved WHERE rule = $1 AND call = $2 AND spent IS NULL
                     RETURNING reserved";
                if let Some(line) = tx.query(sql, &binds![rule, call]).await?.pop() {
                    charge(tx, RULE, rule, line.int(0)?).await?;
                    settled += 1;
                }
            }
        }
        Ok(settled)
    }
}

/// Moves the owner's sums for a call that costs all that was reserved.
async fn charge<T: Tx>(tx: &mut T, owner: super::paid::Owner, id: Uuid, reserved: i64) -> Result<(), Fault> {
    use crate::sql::Cell::{Int, Null};
    let before = Line(vec![Int(reserved), Null, Int(0)]);
    settle(tx, owner, id, &before, &Spent { money: Money(reserved), ..Spent::default() }).await
}

struct PurgeOld(Purge, i64);

impl Work for PurgeOld {
    type Done = Purged;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Purged, Fault> {
        let PurgeOld(Purge { answers_before, decisions_before }, limit) = *self;
        let mut purged = Purged::default();
        if let Some(before) = answers_before {
            purged.answers = purge(tx, "emberd.answers", "digest", "at < $1", before, limit).await?;
        }
        if let Some(before) = decisions_before {
            purged.decisions = purge(tx, "emberd.decisions", "rule, trace_id", "at < $1", before, limit).await?;
            let settled = "at < $1 AND spent IS NOT NULL";
            purged.calls = purge(tx, "emberd.rule_calls", "rule, call", settled, before, limit).await?;
        }
        let most = purged.answers.max(purged.decisions).max(purged.calls);
        purged.more = limit > 0 && most >= limit as u64;
        Ok(purged)
    }
}

async fn purge<T: Tx>(
    tx: &mut T,
    table: &str,
    key: &str,
    old: &str,
    before: UnixNanos,
    limit: i64,
) -> Result<u64, Fault> {
    let sql = if tx.is_sqlite() {
        format!("DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {old} ORDER BY at LIMIT $2)")
    } else {
        let picked = format!("SELECT ctid FROM {table} WHERE {old} ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED");
        format!("DELETE FROM {table} WHERE ctid = ANY(ARRAY({picked}))")
    };
    tx.execute(&sql, &binds![before.micros(), limit]).await
}
