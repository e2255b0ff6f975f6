//! The Redis that all emberds share, as a look-up sees it: asked within [`DEADLINE`] or not at all.
//!
//! Promise: a look-up opens no connection, and waits for none; a value to be written is put into a queue bounded in bytes, or dropped;
//! an invalidation is never dropped.
//! Not here: the connection itself, and whether Redis is up (`session.rs`).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::pattern::Pattern;
use crate::stats::{Calls, State};
use crate::unsaid::Unsaid;
use crate::wire::{HEAD_BYTES_MAX, Names, VERSION_BYTES, Versions};

/// How long a look-up waits for Redis.
pub const DEADLINE: Duration = Duration::from_millis(10);
/// Look-ups without an answer, one after the other, after which it is not asked any more.
const FAULTS_MAX: u32 = 3;
/// Look-ups on their way at once; what comes above them goes without.
const CALLS_MAX: usize = 64;
/// What may wait to be written.
const PUTS_MAX: usize = 1_024;
const PUT_BYTES_MAX: usize = 16 << 20;

/// Where Redis is.
#[derive(Clone)]
pub struct Config {
    /// `redis://`, `rediss://` or `unix://`; may hold a password.
    pub url: String,
    /// What all names in it begin with.
    pub prefix: String,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Config").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Why an address is none of a Redis. The address itself is not shown: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("not the address of a Redis: {0}")]
pub struct BadUrl(&'static str);

/// A value to be written.
pub(crate) struct Put {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) time: Duration,
    _room: OwnedSemaphorePermit,
}

/// What Redis said to a look-up.
#[derive(Debug)]
pub(crate) struct Got {
    /// Nothing: there is none.
    pub(crate) bytes: Vec<u8>,
    pub(crate) versions: Versions,
}

/// The way to it.
pub(crate) struct Far {
    pub(crate) client: redis::Client,
    pub(crate) prefix: String,
    /// Tells this process's invalidations from others'.
    pub(crate) id: String,
    pub(crate) link: Mutex<Option<MultiplexedConnection>>,
    pub(crate) is_up: AtomicBool,
    faults: AtomicU32,
    /// It went down.
    pub(crate) troubled: Notify,
    places: Semaphore,
    puts: mpsc::Sender<Put>,
    pub(crate) queue: tokio::sync::Mutex<mpsc::Receiver<Put>>,
    room: Arc<Semaphore>,
    pub(crate) unsaid: Unsaid,
    pub(crate) calls: Calls,
}

impl Far {
    pub(crate) fn new(config: Config) -> Result<Self, BadUrl> {
        // Its own error is not passed on, for it could show a part of the address.
        let client = redis::Client::open(config.url).map_err(|error| {
            BadUrl(match error.kind() {
                redis::ErrorKind::InvalidClientConfig => {
                    "expected redis://HOST:PORT/DATABASE, rediss://.. or unix:///PATH"
                }
                _ => "it cannot be used",
            })
        })?;
        let (puts, queue) = mpsc::channel(PUTS_MAX);
        Ok(Self {
            client,
            prefix: config.prefix,
            id: format!("{:016x}", rand::random::<u64>()),
            link: Mutex::default(),
            is_up: AtomicBool::new(false),
            faults: AtomicU32::new(0),
            troubled: Notify::new(),
            places: Semaphore::new(CALLS_MAX),
            puts,
            queue: tokio::sync::Mutex::new(queue),
            room: Arc::new(Semaphore::new(PUT_BYTES_MAX)),
            unsaid: Unsaid::default(),
            calls: Calls::default(),
        })
    }

    /// Host and port, without what else the address holds.
    pub(crate) fn place(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    pub(crate) fn state(&self) -> State {
        if self.is_up.load(Ordering::SeqCst) { State::Up } else { State::Down }
    }

    pub(crate) fn names(&self, cache: &str, key: &str) -> Names {
        Names::new(&self.prefix, cache, key)
    }

    fn ready(&self, cache: &str) -> Option<MultiplexedConnection> {
        if self.state() != State::Up || self.unsaid.covers(cache) {
            return None;
        }
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What stands under these names; none where it was not asked, or did not answer in time.
    pub(crate) async fn get(&self, cache: &str, names: &Names, bytes_max: usize) -> Option<Got> {
        let (Some(mut link), Ok(_place)) = (self.ready(cache), self.places.try_acquire()) else {
            self.calls.skipped.one();
            return None;
        };
        // As ranges, so that no more comes than is wanted, whatever stands there.
        let most = bytes_max + HEAD_BYTES_MAX;
        let mut asked = redis::pipe();
        for (name, last) in
            [(&names.value, most), (&names.cache_version, VERSION_BYTES - 1), (&names.key_version, VERSION_BYTES - 1)]
        {
            asked.cmd("GETRANGE").arg(name).arg(0).arg(last);
        }
        let began = Instant::now();
        let answer = tokio::time::timeout(DEADLINE, asked.query_async::<(Vec<u8>, Vec<u8>, Vec<u8>)>(&mut link)).await;
        self.calls.took(began.elapsed());
        match answer {
            Ok(Ok((bytes, cache, key))) => {
                self.calls.answered.one();
                self.faults.store(0, Ordering::SeqCst);
                let bytes = if bytes.len() > most { Vec::new() } else { bytes };
                Some(Got { bytes, versions: Versions { cache, key } })
            }
            Ok(Err(error)) => {
                self.calls.failed.one();
                tracing::debug!(%error, "Redis refused a look-up, or the connection broke");
                // An error that Redis itself tells is an answer: it costs no time.
                if error.code().is_none() {
                    self.fault(error.is_connection_dropped() || error.is_io_error());
                }
                None
            }
            Err(_) => {
                self.calls.late.one();
                self.fault(false);
                None
            }
        }
    }

    /// No answer came; after a few, or where the connection is gone, nobody asks until a probe is answered.
    pub(crate) fn fault(&self, is_gone: bool) {
        let faults = self.faults.fetch_add(1, Ordering::SeqCst) + 1;
        if (is_gone || faults >= FAULTS_MAX) && self.is_up.swap(false, Ordering::SeqCst) {
            tracing::warn!(redis = self.place(), "Redis does not answer in time: it is not asked until it does");
            self.troubled.notify_one();
        }
    }

    /// A probe was answered in time.
    pub(crate) fn recovered(&self) {
        self.faults.store(0, Ordering::SeqCst);
        if !self.is_up.swap(true, Ordering::SeqCst) {
            tracing::info!(redis = self.place(), "Redis answers");
        }
    }

    /// Has a value written, as soon as may be, if at all.
    pub(crate) fn put(&self, name: String, bytes: Vec<u8>, time: Duration) {
        let room = u32::try_from(bytes.len()).ok().filter(|_| self.state() == State::Up);
        let room = room.and_then(|bytes| Arc::clone(&self.room).try_acquire_many_owned(bytes).ok());
        let is_put = room.is_some_and(|room| self.puts.try_send(Put { name, bytes, time, _room: room }).is_ok());
        if !is_put {
            self.calls.dropped.one();
        }
    }

    /// Has it told that something counts no more.
    pub(crate) fn say(&self, pattern: Pattern) {
        self.unsaid.push(pattern);
    }
}
