//! Rules on live traffic: traces are judged as they come, each once, and again when more of them comes.
//!
//! Promise: exactly the traces whose hash says so are judged by a rule ([`sample`]), whatever the order, the pieces and the repetitions in
//! which their spans come, and wherever emberd is restarted; of each (rule, trace) there is a decision that says what was done and why.
//! Memory is bounded in bytes: what does not fit is decided as `shed`. Without an enabled rule nothing is read.
//! Shape:    [`Live::run`] reads the log with a reader of its own and remembers in a cursor file where the oldest trace begins that may
//! still change; a restart reads from there, and what is decided already stays. Time is the log's own until its head is reached.
//! - [`rule`], [`filter`], [`sample`]: what is asked for. `gather`, `origin`, `lateness`: until a trace is complete. `seen`: a trace as
//!   evaluators see it. `decide`, `judge`: through the rules. `consumer`: the loop around all that. `handle`: rules and reasons, for the API.
//!
//! Limits:   spans that come later than [`Config::late`] after their trace was decided are counted, and change nothing.
//! Not here: what an evaluator is (kit), money and rows (store), telling Phoenix (`outbox`).
//! Kept by:  `tests/live.rs`.

mod consumer;
mod decide;
pub mod filter;
mod gather;
mod handle;
mod judge;
mod lateness;
mod origin;
pub mod rule;
pub mod sample;
mod seen;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_log::{CursorError, CursorFile, Reader};
use emberd_model::Offset;
use tokio_util::sync::CancellationToken;

pub use handle::{RuleError, Why};

use crate::engine::{Engine, Shared};
use consumer::Consumer;

/// The name under which the log knows this consumer.
pub const CONSUMER: &str = "live";

/// After an error of the log's or the database's.
const AGAIN: Duration = Duration::from_secs(1);

/// How live traffic is judged.
#[derive(Clone, Debug)]
pub struct Config {
    /// The rule of this name alone, enabled or not; none: all that are enabled.
    pub only: Option<String>,
    /// How often rules are read anew; a change by this emberd counts at once.
    pub rules_every: Duration,
    /// Bytes of spans that are gathered.
    pub bytes_max: usize,
    /// A trace is quiet for at least so long before it is judged.
    pub quiet_min: Duration,
    /// And for at most so long; a trace without its root is then given up.
    pub quiet_max: Duration,
    /// How long a judged trace is held for spans that come late.
    pub late: Duration,
    /// Traces that are judged at the same time.
    pub concurrency: usize,
    /// Bytes read at a time.
    pub read_bytes: usize,
    /// How often complete traces are looked for.
    pub tick: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            only: None,
            rules_every: Duration::from_secs(5),
            bytes_max: 64 << 20,
            quiet_min: Duration::from_secs(2),
            quiet_max: Duration::from_secs(600),
            late: Duration::from_secs(120),
            concurrency: 16,
            read_bytes: 2 << 20,
            tick: Duration::from_millis(200),
        }
    }
}

/// What the wiring hands in.
pub struct Parts {
    /// A reader of the log, wherever it stands.
    pub reader: Box<dyn Reader>,
    /// The log's head.
    pub head: Box<dyn Fn() -> Offset + Send + Sync>,
    /// Where the cursor is kept: [`CONSUMER`]'s.
    pub cursor: CursorFile,
    /// Hears of each durable cursor, for the log's sake.
    pub passed: Box<dyn Fn(Offset) + Send + Sync>,
    /// How.
    pub config: Config,
}

/// What happened since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Decisions `run`.
    pub run: u64,
    /// Traces that were complete again, and had nothing new.
    pub duplicate: u64,
    /// Decisions that came too late: another emberd's stands.
    pub superseded: u64,
    /// Decisions that are neither `run` nor `sampled_out`.
    pub other: u64,
    /// Traces that no rule samples.
    pub sampled_out: u64,
    /// Traces for which there was no memory.
    pub shed: u64,
    /// Spans that changed nothing: repeated.
    pub spans_repeated: u64,
    /// Spans of traces that are settled: sampled out, shed, or later than is waited for.
    pub spans_settled: u64,
    /// Spans of the log that could not be read any more.
    pub spans_lost: u64,
    /// Traces that are gathered now.
    pub open: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Up to where the log was read.
    pub position: u64,
    /// Where reading begins after a restart.
    pub cursor: u64,
}

/// The consumer of live traffic.
pub struct Live {
    shared: Arc<Shared>,
    parts: Mutex<Option<Parts>>,
    counters: Arc<Mutex<Counters>>,
}

impl Engine {
    /// The consumer that judges live traffic by rules, with this engine's evaluators, endpoints and money. Nothing runs before
    /// [`Live::run`].
    #[must_use]
    pub fn live(&self, parts: Parts) -> Live {
        Live { shared: Arc::clone(&self.shared), parts: Mutex::new(Some(parts)), counters: Arc::default() }
    }
}

impl Live {
    /// What happened since it began.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until `stop`, or until the log is sealed and all of it is judged; once only. Traces that are with the rules then are judged again
    /// by whoever runs next. Dropped, it is as if killed.
    ///
    /// # Errors
    /// The cursor file cannot be read.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), CursorError> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(parts) = parts else { return Ok(()) };
        let cursor = match parts.cursor.load() {
            Ok(cursor) => cursor,
            // Reading more again costs nothing but time: what is decided stays.
            Err(error @ CursorError::Corrupt { .. }) => {
                tracing::warn!(%error, "rules on live traffic read the log again from its beginning");
                Some(parts.reader.position())
            }
            Err(error) => return Err(error),
        };
        let mut consumer = Consumer::new(Arc::clone(&self.shared), parts, Arc::clone(&self.counters));
        // A new consumer begins with what comes from now on.
        consumer.begin(cursor);
        consumer.run(&stop).await;
        Ok(())
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Live").field("counters", &self.counters()).finish_non_exhaustive()
    }
}
