//! What an operator's command does with the Redis, on a connection of its own: ask whether it is there, and take out what stands there.
//!
//! Promise: each call is bounded in time; no error shows the address, which may hold a password.
//! Not here: what a running process keeps in memory: that is told by [`Caches::tell`].
//! Kept by: `daemon/tests/it/{doctor,rollback}.rs`.

use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use crate::caches::Caches;
use crate::far::Far;
use crate::wire::SCHEMA;

/// Names taken out at once.
const STEP: usize = 500;

/// Redis did not do it.
#[derive(Debug, thiserror::Error)]
#[error("redis at {place}: {said}")]
pub struct Failed {
    /// Host and port.
    pub place: String,
    /// What it said, or that it said nothing.
    pub said: String,
}

impl Far {
    fn failed(&self, said: impl ToString) -> Failed {
        Failed { place: self.place(), said: said.to_string() }
    }

    async fn connection(&self, patience: Duration) -> Result<MultiplexedConnection, Failed> {
        let how =
            AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(Some(patience));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&how);
        let connected = timeout(patience, connecting).await.map_err(|_| self.failed("no answer in time"))?;
        connected.map_err(|error| self.failed(error))
    }
}

impl Caches {
    /// Whether Redis answers, with a command that it would refuse to one who may not write; its place where it does. None: there is none.
    ///
    /// # Errors
    /// It cannot be reached, or refuses.
    pub async fn ping(&self, patience: Duration) -> Option<Result<String, Failed>> {
        let far = self.far()?;
        let asked = async {
            let mut link = far.connection(patience).await?;
            // Of a name that nobody has: what is asked is whether one may.
            let name = format!("{}:doctor", far.prefix);
            redis::cmd("DEL").arg(name).exec_async(&mut link).await.map_err(|error| far.failed(error))?;
            Ok(far.place())
        };
        Some(asked.await)
    }

    /// Takes the values of all caches out of Redis; how many there were. None: there is no Redis.
    ///
    /// # Errors
    /// It cannot be reached, refuses, or has not done it in time; some may be gone by then.
    pub async fn sweep(&self, patience: Duration) -> Option<Result<u64, Failed>> {
        let far = self.far()?;
        let swept = timeout(patience, async {
            let mut link = far.connection(patience).await?;
            let (mut place, mut gone) = (0_u64, 0);
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(place).arg("MATCH").arg(format!("{}:{SCHEMA}:*", far.prefix)).arg("COUNT").arg(STEP);
                let (next, names): (u64, Vec<String>) =
                    scan.query_async(&mut link).await.map_err(|error| far.failed(error))?;
                if !names.is_empty() {
                    let unlink = redis::cmd("UNLINK").arg(&names).query_async::<u64>(&mut link).await;
                    gone += unlink.map_err(|error| far.failed(error))?;
                }
                place = next;
                if place == 0 {
                    return Ok(gone);
                }
            }
        });
        Some(swept.await.unwrap_or_else(|_| Err(far.failed("not done in time"))))
    }
}
