//! Answers, by what was asked.

use emberd_model::UnixNanos;

use super::money::Money;
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// What an endpoint or an evaluator answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Digest of what was asked: evaluator or model, version, parameters, input.
    pub digest: Vec<u8>,
    /// As it came.
    pub body: String,
}

impl Store {
    /// The answer to what has this digest, with its price.
    pub async fn answer(&self, digest: &[u8]) -> Result<Option<(String, Money)>, Error> {
        let sql = "SELECT body, cost FROM emberd.answers WHERE digest = $1";
        let found = self.lines(sql, &[Bind::Blob(digest)]).await?;
        Ok(found.first().map(|line| Ok::<_, Fault>((line.text(0)?, Money(line.int(1)?)))).transpose()?)
    }

    /// The answers that there are to these, each with its price, in the order asked.
    pub async fn answers(&self, digests: Vec<Vec<u8>>) -> Result<Vec<Option<(String, Money)>>, Error> {
        Ok(self.run(Lookup(digests)).await?)
    }

    /// Stores an answer that cost nothing, for a code evaluator. The first one stays.
    pub async fn put_answer(&self, answer: Answer, now: UnixNanos) -> Result<(), Error> {
        Ok(self.run(PutAnswer(answer, now.micros())).await?)
    }
}

pub(super) async fn put_answer<T: Tx>(tx: &mut T, answer: &Answer, cost: Money, at: i64) -> Result<(), Fault> {
    let sql =
        "INSERT INTO emberd.answers (digest, body, cost, at) VALUES ($1, $2, $3, $4) ON CONFLICT (digest) DO NOTHING";
    tx.execute(sql, &binds![&answer.digest[..], &answer.body, cost.0, at]).await?;
    Ok(())
}

struct Lookup(Vec<Vec<u8>>);

impl Work for Lookup {
    type Done = Vec<Option<(String, Money)>>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Self::Done, Fault> {
        let rows: Vec<_> =
            self.0.iter().enumerate().map(|(at, digest)| binds![at as i64, &digest[..]].into()).collect();
        let sql = "SELECT at_, (SELECT body FROM emberd.answers WHERE digest = digest_),
             (SELECT cost FROM emberd.answers WHERE digest = digest_) FROM {rows}";
        let mut found = vec![None; self.0.len()];
        for line in tx.each(sql, &["at_", "digest_"], &rows).await? {
            if let (Some(body), Some(cost)) = (line.maybe_text(1)?, line.maybe_int(2)?) {
                found[line.int(0)? as usize] = Some((body, Money(cost)));
            }
        }
        Ok(found)
    }
}

struct PutAnswer(Answer, i64);

impl Work for PutAnswer {
    type Done = ();

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        put_answer(tx, &self.0, Money(0), self.1).await
    }
}
