//! PostgreSQL 15 and later, Supabase included: a pool of connections.

mod fault;
pub(crate) mod read;
mod rights;
mod rows;
mod sql;
mod tx;

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, Executor};
use tokio::sync::OnceCell;
use uuid::Uuid;

pub(crate) use self::fault::fault;
use self::tx::PgTx;
use crate::error::ConnectError;
use crate::fault::Fault;
use crate::library::{Ping, Pool};
use crate::tx::Work;

/// How long a connection is waited for.
const ACQUIRE: Duration = Duration::from_secs(10);
/// How long a transaction may take before it counts as lost with its connection: longer than any lock that an operator would hold.
const TRANSACTION: Duration = Duration::from_secs(180);
/// How often a contended transaction is tried again before the caller hears of it.
const ATTEMPTS: u32 = 20;

/// Every statement finds its rows by key; a plan made while a table was small must not become a scan of a large one (see `tx.rs`).
const BEGIN: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
     SET LOCAL jit = off";

#[derive(Clone)]
pub(crate) struct Postgres {
    pub(crate) pool: PgPool,
    /// Whose rights reading has; none: emberd's own.
    user: Option<Uuid>,
    /// Whether a user's rights can be taken.
    has_role: Arc<OnceCell<bool>>,
}

impl Postgres {
    /// Does not connect yet.
    pub(crate) fn open(url: &str, max_connections: u32) -> Result<Self, ConnectError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|source| ConnectError::Open { source: source.into() })?
            .application_name("emberd");
        let pool = PgPoolOptions::new()
            .max_connections(max_connections.max(2))
            .acquire_timeout(ACQUIRE)
            .connect_lazy_with(options);
        Ok(Self { pool, user: None, has_role: Arc::default() })
    }

    /// Does the work in a transaction; again, if another writer was in the way.
    pub(crate) async fn run<W: Work>(&self, work: &W) -> Result<W::Done, Fault> {
        let mut attempt = 0;
        loop {
            match self.attempt(work, attempt).await {
                Err(Fault::Contended { .. }) if attempt + 1 < ATTEMPTS => attempt += 1,
                done => return done,
            }
            tokio::time::sleep(pause(attempt)).await;
        }
    }

    async fn attempt<W: Work>(&self, work: &W, attempt: u32) -> Result<W::Done, Fault> {
        let mut connection = self.pool.acquire().await.map_err(fault)?;
        let done = tokio::time::timeout(TRANSACTION, async {
            let mut tx = PgTx { tx: connection.begin_with(BEGIN).await.map_err(fault)? };
            let done = work.run(&mut tx, attempt).await;
            match done {
                Ok(done) => tx.tx.commit().await.map_err(fault).map(|()| done),
                Err(fault) => {
                    // A connection that cannot even do this is closed below.
                    let _ = tx.tx.rollback().await;
                    Err(fault)
                }
            }
        })
        .await
        .unwrap_or_else(|late| Err(Fault::Unavailable { source: late.into() }));
        // The server may be a replica by now, or gone: the next connection asks for the way anew.
        if matches!(done, Err(Fault::Unavailable { .. })) {
            connection.close_on_drop();
        }
        done
    }

    pub(crate) async fn ping(&self) -> Result<Ping, Fault> {
        let start = Instant::now();
        let mut connection = self.pool.acquire().await.map_err(fault)?;
        let acquire = start.elapsed();
        connection.execute("SELECT 1").await.map_err(fault)?;
        Ok(Ping { acquire, query: start.elapsed() - acquire })
    }

    pub(crate) fn pool(&self) -> Pool {
        let idle = self.pool.num_idle() as u32;
        let max = self.pool.options().get_max_connections();
        Pool { in_use: self.pool.size().saturating_sub(idle), idle, max }
    }
}

/// Longer with each attempt, and never the same for two writers.
fn pause(attempt: u32) -> Duration {
    let chance = Uuid::new_v4().as_u128() as u64 % 1_000;
    Duration::from_micros(u64::from(attempt.min(10)) * 1_000 + chance)
}
