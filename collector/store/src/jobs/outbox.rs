//! What Phoenix is still to be told.
//!
//! Promise: what was put is told at least once, the newest version last; who told an older one does not take the newer away.

use std::time::Duration;

use emberd_model::UnixNanos;
use serde_json::Value;

use super::lease_end;
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, binds};
use crate::store::Store;
use crate::text::without_nul;
use crate::tx::{Tx, Work};

/// Rows in one taking.
const DUE_MAX: u32 = 10_000;

/// What Phoenix is to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// What it is.
    pub kind: String,
    /// Which of its kind.
    pub key: String,
    /// What to say.
    pub body: Value,
    /// Raised by each put.
    pub version: i64,
    /// How often it was taken, this time included.
    pub attempts: i64,
}

/// How much is in the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Still to be told.
    pub pending: i64,
    /// Refused for good.
    pub refused: i64,
}

impl Store {
    /// Puts something to be told from `due` on, in place of an older version of it, whether that waits or was refused.
    pub async fn put_outgoing(&self, kind: &str, key: &str, body: Value, due: UnixNanos) -> Result<(), Error> {
        self.put_all_outgoing(vec![(kind.to_owned(), key.to_owned(), body)], due).await
    }

    /// The same for many, (kind, key, body) each; of one key the last counts.
    pub async fn put_all_outgoing(&self, all: Vec<(String, String, Value)>, due: UnixNanos) -> Result<(), Error> {
        Ok(self.run(PutOutgoing(all, due.micros())).await?)
    }

    /// Takes what is due, longest due first, for so long: if it is neither told nor postponed by then, it is due again.
    /// `limit` is kept within 10 000.
    pub async fn take_outgoing(&self, lease: Duration, limit: u32, now: UnixNanos) -> Result<Vec<Outgoing>, Error> {
        let (until, limit) = (lease_end(now, lease), i64::from(limit.min(DUE_MAX)));
        Ok(self.run(TakeOutgoing { until, limit, now: now.micros() }).await?)
    }

    /// Takes out what was told, but not newer versions of it. Gives how many.
    pub async fn told(&self, told: Vec<Outgoing>) -> Result<u64, Error> {
        Ok(self.run(Told(told)).await?)
    }

    /// Puts off what could not be told. False: there is a newer version, or none.
    pub async fn postpone(&self, outgoing: &Outgoing, due: UnixNanos) -> Result<bool, Error> {
        let Outgoing { kind, key, version, .. } = outgoing.clone();
        Ok(self.run(Later { kind, key, version, due: due.micros(), refused: None }).await?)
    }

    /// Keeps, with the reason, what Phoenix refuses for good. False: there is a newer version, or none.
    pub async fn refuse(&self, outgoing: &Outgoing, why: &str) -> Result<bool, Error> {
        let Outgoing { kind, key, version, .. } = outgoing.clone();
        Ok(self.run(Later { kind, key, version, due: 0, refused: Some(why.to_owned()) }).await?)
    }

    /// How much is in the outbox.
    pub async fn outgoing(&self) -> Result<Waiting, Error> {
        let sql = "SELECT count(*) - count(refused), count(refused) FROM emberd.outbox";
        let line = self.lines(sql, &[]).await?.pop().ok_or_else(|| Fault::damaged("the count", "the outbox"))?;
        Ok(Waiting { pending: line.int(0)?, refused: line.int(1)? })
    }
}

struct PutOutgoing(Vec<(String, String, Value)>, i64);

impl Work for PutOutgoing {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        let last: std::collections::BTreeMap<_, &Value> =
            self.0.iter().map(|(kind, key, body)| ((without_nul(kind), without_nul(key)), body)).collect();
        let rows: Vec<Vec<Bind<'_>>> =
            last.iter().map(|((kind, key), body)| binds![&**kind, &**key, *body, self.1].into()).collect();
        let sql = "INSERT INTO emberd.outbox AS o (kind, key, body, due_at)
             SELECT kind_, key_, body_::jsonb, due_ FROM {rows} WHERE true
             ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body, due_at = excluded.due_at, version = o.version + 1,
                 attempts = 0, refused = NULL";
        tx.each(sql, &["kind_", "key_", "body_", "due_"], &rows).await?;
        Ok(())
    }
}

struct TakeOutgoing {
    until: i64,
    limit: i64,
    now: i64,
}

const TAKE_POSTGRES: &str = "UPDATE emberd.outbox SET due_at = $2, attempts = attempts + 1 WHERE ctid = ANY(ARRAY(
         SELECT ctid FROM emberd.outbox WHERE refused IS NULL AND due_at <= $1 ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED))
     RETURNING kind, key, body, version, attempts";
const TAKE_SQLITE: &str = "UPDATE emberd.outbox SET due_at = $2, attempts = attempts + 1 WHERE rowid IN (
         SELECT rowid FROM emberd.outbox WHERE refused IS NULL AND due_at <= $1 ORDER BY due_at LIMIT $3)
     RETURNING kind, key, body, version, attempts";

impl Work for TakeOutgoing {
    type Done = Vec<Outgoing>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Vec<Outgoing>, Fault> {
        let sql = if tx.is_sqlite() { TAKE_SQLITE } else { TAKE_POSTGRES };
        let lines = tx.query(sql, &binds![self.now, self.until, self.limit]).await?;
        let mut taken = Vec::with_capacity(lines.len());
        for line in lines {
            let (kind, key, body) = (line.text(0)?, line.text(1)?, line.json(2)?);
            taken.push(Outgoing { kind, key, body, version: line.int(3)?, attempts: line.int(4)? });
        }
        taken.sort_by(|one, other| (&one.kind, &one.key).cmp(&(&other.kind, &other.key)));
        Ok(taken)
    }
}

struct Told(Vec<Outgoing>);

impl Work for Told {
    type Done = u64;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<u64, Fault> {
        let mut gone = 0;
        for Outgoing { kind, key, version, .. } in &self.0 {
            let sql = "DELETE FROM emberd.outbox WHERE kind = $1 AND key = $2 AND version = $3";
            gone += tx.execute(sql, &binds![kind, key, *version]).await?;
        }
        Ok(gone)
    }
}

struct Later {
    kind: String,
    key: String,
    version: i64,
    due: i64,
    refused: Option<String>,
}

impl Work for Later {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let sql = "UPDATE emberd.outbox SET due_at = $4, refused = $5 WHERE kind = $1 AND key = $2 AND version = $3";
        let binds = binds![&self.kind, &self.key, self.version, self.due, self.refused.as_deref()];
        Ok(tx.execute(sql, &binds).await? == 1)
    }
}
