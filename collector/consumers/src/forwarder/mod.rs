//! Sends batches on, to Phoenix or to another OTLP endpoint.
//!
//! Promise: every span behind the durable cursor was acknowledged by the endpoint (read back from Phoenix, where that is asked for)
//! or is in quarantine with the endpoint's answer. An endpoint may be slow, dead, ill, full or locked for as long as it likes:
//! the log keeps its spans meanwhile, as far as its disk budget goes, and nobody else notices. A span may arrive more than once,
//! after a crash or a lost answer; Phoenix ignores span ids that it has.
//!
//! - `courier`: one load to its endpoint, through retries, halving and quarantine. `answer`: what answers mean. `circuit`: when to
//!   knock again. `transport`: the wire.
//! - `load`, over `outline`: batches' bytes laid end to end, and cut, without being decoded.
//! - `plain`: the order of things for an endpoint whose word is enough. `verified`, over `window`: for Phoenix, whose word is not.
//!
//! Not here: what Phoenix needs changed in a span, and how it is asked what it holds (`emberd-phoenix`); the log's side of reading.
//! Why it is so, with what was measured: docs/decisions/0006-forwarding.md.
//! Kept by: `tests/`, against endpoints that fail on purpose; `consumers/tests/phoenix.rs`, against the real Phoenix.

mod answer;
mod circuit;
mod courier;
mod load;
mod outline;
mod plain;
mod transport;
mod verified;
mod window;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use emberd_log::{CursorError, CursorFile, ReadError, Reader};
use emberd_model::{Batch, Clock, Flags, Offset};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::circuit::Backoff;
use self::courier::Courier;
use self::load::Part;
use crate::Progress;
use crate::quarantine::Quarantine;

/// What Phoenix takes over gRPC in one message, less what a message has around it.
pub const LOAD_BYTES_MAX: usize = (4 << 20) - (64 << 10);

/// Where spans are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// OTLP/gRPC, such as `http://127.0.0.1:4317`; `https` with TLS.
    Grpc(String),
    /// OTLP/HTTP with its path, such as `http://127.0.0.1:4318/v1/traces`.
    Http(String),
}

/// How requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard; Phoenix does not take it over HTTP.
    Zstd,
}

/// An API key, read when it is needed, so that a new one takes effect without a restart.
#[derive(Clone)]
pub struct Key(Arc<dyn Fn() -> std::io::Result<String> + Send + Sync>);

impl Key {
    /// A key that `read` gives, from a file for example.
    pub fn new(read: impl Fn() -> std::io::Result<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    fn read(&self) -> Result<String, Error> {
        let key = (self.0)().map_err(Error::Key)?;
        Ok(key.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What makes an endpoint a Phoenix.
#[derive(Clone, Debug)]
pub struct PhoenixConfig {
    /// Its API, such as `http://127.0.0.1:6006`.
    pub url: String,
    /// Whether its OK is not believed: what it holds is read back, and what it lost is sent again.
    pub verify: bool,
    /// Spans that were sent and not read back yet, at most. What a killed Phoenix loses is no more than this.
    pub unverified_spans_max: usize,
    /// How long a span may be missing although later ones are there, before it is sent again; doubles each time.
    pub grace: Duration,
    /// The same where nothing later was sent, and Phoenix may merely be slow.
    pub idle_grace: Duration,
}

impl PhoenixConfig {
    /// The Phoenix at this URL, verified.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            verify: true,
            unverified_spans_max: 2_000,
            grace: Duration::from_secs(2),
            idle_grace: Duration::from_secs(60),
        }
    }

    /// Its door without a limit on a message's size, if `endpoint` is the one with a limit.
    fn wide_door(&self, endpoint: &Endpoint) -> Option<Endpoint> {
        let url = format!("{}/v1/traces", self.url.trim_end_matches('/'));
        matches!(endpoint, Endpoint::Grpc(_)).then_some(Endpoint::Http(url))
    }
}

/// How a forwarder forwards.
#[derive(Clone, Debug)]
pub struct Config {
    /// The consumer's name, in the ledger and in quarantine.
    pub name: String,
    /// Where to.
    pub endpoint: Endpoint,
    /// Headers of every request.
    pub headers: http::HeaderMap,
    /// The API key, sent as `authorization: Bearer`.
    pub key: Option<Key>,
    /// How requests are compressed.
    pub compression: Compression,
    /// The size up to which batches are laid end to end, and beyond which they are cut. Learned downwards from the endpoint.
    pub load_bytes_max: usize,
    /// Loads under way at once; 1 for Phoenix, whatever stands here.
    pub in_flight: usize,
    /// How long an answer may take; a second more for each MiB.
    pub timeout: Duration,
    /// The waits between tries.
    pub backoff: Backoff,
    /// How long an endpoint may break on a single span, while taking others, before that span is put into quarantine.
    pub patience: Duration,
    /// How long work in hand may take once the forwarder is told to stop.
    pub stop_within: Duration,
    /// Set where the endpoint is a Phoenix.
    pub phoenix: Option<PhoenixConfig>,
}

impl Config {
    /// A consumer called `name` that sends to any OTLP endpoint.
    #[must_use]
    pub fn otlp(name: &str, endpoint: Endpoint) -> Self {
        Self {
            name: name.to_owned(),
            endpoint,
            headers: http::HeaderMap::new(),
            key: None,
            compression: Compression::None,
            load_bytes_max: LOAD_BYTES_MAX,
            in_flight: 4,
            timeout: Duration::from_secs(30),
            backoff: Backoff::default(),
            patience: Duration::from_secs(60),
            stop_within: Duration::from_secs(2),
            phoenix: None,
        }
    }

    /// A consumer called `name` that sends to a Phoenix.
    #[must_use]
    pub fn phoenix(name: &str, endpoint: Endpoint, phoenix: PhoenixConfig) -> Self {
        let timeout = Duration::from_secs(10);
        // One knocks at one Phoenix: it can bear that more often than a service with a thousand clients.
        let backoff = Backoff { max: Duration::from_secs(10), ..Backoff::default() };
        Self { phoenix: Some(phoenix), timeout, backoff, in_flight: 1, ..Self::otlp(name, endpoint) }
    }
}

/// Why a forwarder cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that is none.
    #[error("{url:?} is no address of an otlp endpoint")]
    Url {
        /// As it was given.
        url: String,
    },
    /// TLS to that address cannot be set up.
    #[error("cannot set up tls to {url}")]
    Tls {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// No HTTP client.
    #[error("cannot make an http client")]
    Client(#[source] reqwest::Error),
    /// No client of Phoenix's API.
    #[error("cannot make a client of phoenix")]
    Phoenix(#[from] emberd_phoenix::client::Error),
    /// The API key cannot be read.
    #[error("cannot read the api key")]
    Key(#[source] std::io::Error),
    /// The API key is not one line of text.
    #[error("the api key is not one line of text")]
    KeyText,
    /// The cursor file cannot be read.
    #[error("cannot read the cursor")]
    Cursor(#[from] CursorError),
    /// The quarantine cannot be read.
    #[error("cannot read the quarantine")]
    Quarantine(#[source] std::io::Error),
}

/// A consumer of the log that sends what it reads.
pub struct Forwarder {
    config: Config,
    source: Source,
    courier: Arc<Courier>,
    /// Set where what was sent is read back.
    client: Option<emberd_phoenix::Client>,
}

impl Forwarder {
    /// A forwarder that goes on where the cursor file says; without one, where `reader` stands. `passed` hears of each durable
    /// cursor, for the log to know what may go. Starts nothing: see [`Forwarder::run`].
    ///
    /// # Errors
    /// On an address, a key or a file that cannot be used. An endpoint that does not answer is no error.
    pub fn new(
        config: Config,
        reader: Box<dyn Reader>,
        cursor: CursorFile,
        quarantine: Quarantine,
        clock: Arc<dyn Clock>,
        progress: Arc<Progress>,
        passed: impl Fn(Offset) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        progress.quarantined(quarantine.spans(&config.name).map_err(Error::Quarantine)?);
        let client = match &config.phoenix {
            Some(phoenix) if phoenix.verify => Some(emberd_phoenix::Client::new(&phoenix.url, config.timeout)?),
            _ => None,
        };
        if let (Some(client), Some(key)) = (&client, &config.key) {
            client.set_key(Some(&key.read()?))?;
        }
        let courier = Arc::new(Courier::new(&config, quarantine, progress.clone(), clock)?);
        let source = Source::new(reader, cursor, progress, Box::new(passed))?;
        Ok(Self { config, source, courier, client })
    }

    /// Forwards until `stop`, or until the log is sealed and everything in it has been delivered.
    ///
    /// When it is told to stop, work in hand has [`Config::stop_within`]; what is not done by then is done again after the next
    /// start. Dropping the future is safe at any time, for the same reason.
    pub async fn run(self, stop: CancellationToken) {
        let Self { config, source, courier, client } = self;
        match client {
            Some(client) => verified::Verified::new(config, source, courier, client).run(stop).await,
            None => plain::run(&config, source, &courier, stop).await,
        }
    }
}

/// The log as a forwarder sees it, and its place in there.
struct Source {
    reader: Box<dyn Reader>,
    cursor: Arc<CursorFile>,
    /// The cursor that is on disk.
    durable: Offset,
    /// Where it may move to.
    reached: Offset,
    stored_at: Instant,
    progress: Arc<Progress>,
    passed: Box<dyn Fn(Offset) + Send + Sync>,
}

/// What the log gave.
enum Read {
    Batches(Vec<Batch>),
    /// Nothing more will come.
    Sealed,
    /// Something was wrong; try again.
    Again,
}

impl Source {
    fn new(
        mut reader: Box<dyn Reader>,
        cursor: CursorFile,
        progress: Arc<Progress>,
        passed: Box<dyn Fn(Offset) + Send + Sync>,
    ) -> Result<Self, Error> {
        match cursor.load() {
            Ok(Some(cursor)) => reader.seek(cursor),
            Ok(None) => {}
            // What is repeated does no harm; what is skipped would.
            Err(error @ CursorError::Corrupt { .. }) => {
                tracing::error!(%error, "everything that the log still holds is sent again");
                progress.failed("cursor", &error);
                reader.seek(Offset(0));
            }
            Err(error) => return Err(error.into()),
        }
        let durable = reader.position();
        progress.passed(durable);
        passed(durable);
        let (cursor, stored_at) = (Arc::new(cursor), Instant::now());
        Ok(Self { reader, cursor, durable, reached: durable, stored_at, progress, passed })
    }

    /// Reads on. Cancel-safe.
    async fn next(&mut self, bytes_max: usize) -> Read {
        let error = match self.reader.next(bytes_max).await {
            Ok(batches) if batches.is_empty() => return Read::Sealed,
            Ok(batches) => return Read::Batches(batches),
            Err(error) => error,
        };
        tracing::error!(%error, "spans cannot be read from the log");
        match &error {
            ReadError::Gone { asked, tail } => {
                self.progress.failed("gone", &error);
                self.progress.skipped(tail.since(*asked));
                self.reader.seek(*tail);
            }
            ReadError::Ahead { head, .. } => {
                self.progress.failed("ahead", &error);
                self.reader.seek(*head);
                (self.durable, self.reached) = (*head, *head);
                self.progress.passed(*head);
            }
            ReadError::Damaged { from, to } => {
                self.progress.failed("damaged", &error);
                self.progress.skipped(to.since(*from));
            }
            ReadError::Disk { .. } => {
                self.progress.failed("disk", &error);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Read::Again
    }

    /// Everything before `cursor` is done.
    fn reach(&mut self, cursor: Offset) {
        self.reached = self.reached.max(cursor);
    }

    /// Whether the durable cursor is behind.
    fn is_behind(&self) -> bool {
        self.reached != self.durable
    }

    /// Waits until it is time to move the durable cursor: not with each load, as the disk is the log's first of all. What a
    /// crash makes us send twice is what was sent in that time.
    fn due(&self) -> impl Future<Output = ()> + use<> {
        tokio::time::sleep_until(self.stored_at + CURSOR_EVERY)
    }

    /// Moves the durable cursor. A disk that does not let it is tried again later.
    async fn store(&mut self) {
        self.stored_at = Instant::now();
        if !self.is_behind() {
            return;
        }
        let (file, cursor) = (self.cursor.clone(), self.reached);
        match tokio::task::spawn_blocking(move || file.store(cursor)).await {
            Ok(Ok(())) => {
                self.durable = cursor;
                self.progress.passed(cursor);
                (self.passed)(cursor);
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the cursor does not move");
                self.progress.failed("cursor", &error);
            }
            Err(error) => self.progress.failed("cursor", &error),
        }
    }
}

/// How often a cursor is made durable.
const CURSOR_EVERY: Duration = Duration::from_millis(250);

/// The part of a load that a batch becomes: its own bytes, unless it is for Phoenix and must be mended.
async fn prepared(batch: &Batch, for_phoenix: bool, courier: &Courier) -> Part {
    let part = Part::of(batch);
    if !for_phoenix || !batch.flags.has(Flags::MEND) {
        return part;
    }
    let mended = match emberd_phoenix::mend(&batch.body) {
        Ok(mended) => mended,
        Err(error) => {
            tracing::error!(offset = %batch.offset, %error, "a batch of the log cannot be decoded");
            return part;
        }
    };
    if mended.changed {
        let mut spans: Vec<_> = mended.marks.iter().map(|mark| mark.span).collect();
        spans.dedup();
        courier.progress().mended(spans.len() as u64);
    }
    let left_out = mended.unforwardable.len() as u64;
    if left_out > 0 {
        let reason = mended.unforwardable[0].reason.to_owned();
        courier.put_aside(&part.clone().into(), left_out, "unforwardable", reason).await;
    }
    Part { body: mended.body, spans: part.spans - left_out.min(part.spans), ..part }
}
