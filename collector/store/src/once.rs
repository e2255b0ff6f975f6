//! What is asked under a key is done once.
//!
//! Promise: of any number of requests with one key by one caller, at once or one after the other, one makes a row, and the others are
//! told which; with another body they are told so. The key is written down in the transaction that makes the row, so that neither is
//! there without the other. Keys are forgotten after [`KEPT`].
//! Not here: keys of evaluations, which the job's row holds (`jobs/job.rs`) for as long as it is there; of those only the body is kept here.
//! Kept by: `tests::once`.

use std::time::Duration;

use emberd_model::UnixNanos;
use uuid::Uuid;

use crate::error::Error;
use crate::fault::Fault;
use crate::record::Writer;
use crate::sql::{Line, binds};
use crate::store::Store;
use crate::text::without_nul;
use crate::tx::{Tx, Work};

/// How long a key is known.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Under which key something is asked, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Who asks.
    pub creator: Uuid,
    /// For what: keys of different operations are different keys.
    pub operation: &'static str,
    /// The caller's word.
    pub key: String,
    /// SHA-256 of what was sent.
    pub digest: [u8; 32],
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done<T> {
    /// It is done now.
    Now(T),
    /// It was done before, and made the row of this id.
    Before(Uuid),
    /// The key came before with another body.
    OtherBody,
}

impl<T> Done<T> {
    pub(crate) fn map<U>(self, of: impl FnOnce(T) -> U) -> Done<U> {
        match self {
            Self::Now(done) => Done::Now(of(done)),
            Self::Before(id) => Done::Before(id),
            Self::OtherBody => Done::OtherBody,
        }
    }
}

impl Store {
    /// Whether the same was asked under a key that something else looks after. Who made the row `made` (`is_new`) keeps what was asked;
    /// of whom it was made for before, nothing is known until that is kept.
    pub async fn same_body(&self, once: Once, made: Uuid, is_new: bool, now: UnixNanos) -> Result<bool, Error> {
        let work = Nothing { is_new };
        let done = self.run(Keyed { once: Some(once), id: made, at: now, work, is_done: |is_new| *is_new }).await?;
        Ok(!matches!(done, Done::OtherBody))
    }

    /// A secret that all emberds on this database share; none if there is none of this name.
    pub async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let found = self.lines("SELECT secret FROM emberd.secrets WHERE name = $1", &binds![name]).await?;
        Ok(found.first().map(|line| line.blob(0).map(<[u8]>::to_vec)).transpose()?)
    }
}

struct Nothing {
    is_new: bool,
}

impl Work for Nothing {
    type Done = bool;

    async fn run<T: Tx>(&self, _tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        Ok(self.is_new)
    }
}

/// A work that makes the row `id`, under a key if there is one.
pub(crate) struct Keyed<W: Work> {
    pub(crate) once: Option<Once>,
    pub(crate) id: Uuid,
    pub(crate) at: UnixNanos,
    pub(crate) work: W,
    /// Whether it made it.
    pub(crate) is_done: fn(&W::Done) -> bool,
}

impl<W: Work> Work for Keyed<W> {
    type Done = Done<W::Done>;

    async fn run<T: Tx>(&self, tx: &mut T, attempt: u32) -> Result<Done<W::Done>, Fault> {
        let Some(once) = &self.once else { return Ok(Done::Now(self.work.run(tx, attempt).await?)) };
        let Once { creator, operation, key, digest } = once;
        // Whoever else comes with this key waits here until we are done.
        tx.own(&Writer::new(&format!("once {creator} {operation} {}", without_nul(key)))).await?;
        let sql = "SELECT digest, made FROM emberd.asked WHERE creator = $1 AND operation = $2 AND key = $3";
        if let Some(line) = tx.query(sql, &binds![*creator, *operation, key]).await?.first() {
            return before(line, digest);
        }
        let done = self.work.run(tx, attempt).await?;
        if (self.is_done)(&done) {
            tx.act_for(None).await?;
            let at = crate::Moment::from(self.at).micros();
            let oldest = at - i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX);
            tx.execute("DELETE FROM emberd.asked WHERE at < $1", &binds![oldest]).await?;
            let sql =
                "INSERT INTO emberd.asked (creator, operation, key, digest, made, at) VALUES ($1, $2, $3, $4, $5, $6)";
            tx.execute(sql, &binds![*creator, *operation, key, &digest[..], self.id, at]).await?;
        }
        Ok(Done::Now(done))
    }
}

fn before<D>(line: &Line, digest: &[u8; 32]) -> Result<Done<D>, Fault> {
    if line.blob(0)? == digest { Ok(Done::Before(line.id(1)?)) } else { Ok(Done::OtherBody) }
}
