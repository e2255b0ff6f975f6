//! Sends batches on, to Phoenix or to another OTLP endpoint.
//!
//! Promise: every span behind the durable cursor was acknowledged by the endpoint (read back from Phoenix, where that is asked for)
//! or is in quarantine with the endpoint's answer. An endpoint may be slow, dead, ill, full or locked for as long as it likes:
//! the log keeps its spans meanwhile, as far as its disk budget goes, and nobody else notices. A span may arrive more than once,
//! after a crash or a lost answer; Phoenix ignores span ids that it has.
//!
//! - `courier`: one load to its endpoint, through retries, halving and quarantine. `answer`: what answers mean. `circuit`: when to
//!   knock again. `transport`, over `gathered`: the wire.
//! - `source`: the log, cursor and book. `feed`: what is made of it, [`choice`] included. `load`, over `outline`: batches' bytes laid
//!   end to end, and cut, without being decoded. `release`: quarantined spans, decided about.
//! - `plain`: the order of things for an endpoint whose word is enough. `verified`, over `window`: for Phoenix, whose word is not.
//!
//! Not here: what Phoenix needs changed in a span, and how it is asked what it holds (`emberd-phoenix`); the log's side of reading.
//! Why it is so, with what was measured: docs/decisions/0006-forwarding.md.
//! Kept by: `tests/`, against endpoints that fail on purpose; `consumers/tests/phoenix.rs`, against the real Phoenix.

mod answer;
pub mod choice;
mod circuit;
mod courier;
mod feed;
mod gathered;
#[doc(hidden)]
pub mod inside;
mod load;
mod outline;
mod plain;
mod probe;
mod release;
mod source;
mod transport;
mod verified;
mod window;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use emberd_log::Reader;
use emberd_log::disk::Disk;
use emberd_model::{Clock, Offset};
use tokio_util::sync::CancellationToken;

use self::choice::Chooser;
pub use self::circuit::Backoff;
use self::courier::Courier;
pub use self::probe::{Refusal, probe};
use self::source::Source;
use crate::Progress;
use crate::book::BookFile;
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
    /// What the endpoint gets when it cannot keep up; none: everything, for ever.
    pub choice: Option<choice::Config>,
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
            choice: None,
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
    /// Cursor and book cannot be read.
    #[error("cannot read cursor and book")]
    Book(#[from] crate::book::Error),
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
    client: Option<Arc<emberd_phoenix::Client>>,
}

/// Where a forwarder keeps what it must find again.
pub struct Files {
    /// The disk of cursor and book.
    pub disk: Arc<dyn Disk>,
    /// Their directory.
    pub dir: PathBuf,
    /// Where spans go that cannot be delivered.
    pub quarantine: Quarantine,
}

impl Forwarder {
    /// A forwarder that goes on where its book says; without one, where `reader` stands. `passed` hears of each durable cursor, for
    /// the log to know what may go; `pressure` says what part of the log's budget the spans behind an offset take. Starts nothing:
    /// see [`Forwarder::run`].
    ///
    /// # Errors
    /// On an address, a key or a file that cannot be used. An endpoint that does not answer is no error, nor is a book that is
    /// damaged: everything that the log still holds is sent again then.
    pub fn new(
        config: Config,
        reader: Box<dyn Reader>,
        files: Files,
        clock: Arc<dyn Clock>,
        progress: Arc<Progress>,
        passed: impl Fn(Offset) + Send + Sync + 'static,
        pressure: impl Fn(Offset) -> f64 + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let client = match &config.phoenix {
            Some(phoenix) if phoenix.verify => Some(emberd_phoenix::Client::new(&phoenix.url, config.timeout)?),
            _ => None,
        };
        if let (Some(client), Some(key)) = (&client, &config.key) {
            client.set_key(Some(&key.read()?))?;
        }
        let Files { disk, dir, quarantine } = files;
        let mut file = match BookFile::open(disk.clone(), &dir, &config.name, reader.position()) {
            // What is repeated does no harm; what is skipped would.
            Err(error) if error.is_damage() => {
                tracing::error!(consumer = config.name, %error, "everything that the log still holds is sent again");
                progress.failed("cursor", &error);
                BookFile::begin_anew(disk, &dir, &config.name, reader.position())?
            }
            opened => opened?,
        };
        if let Some(item) = &file.stored().released {
            // It was booked, and a crash may have kept its files from going.
            quarantine.remove(&config.name, item).map_err(Error::Quarantine)?;
        }
        let decisions = file.decisions();
        let chooser = config.choice.clone().map(|choice| Chooser::new(choice, &decisions));
        let courier = Arc::new(Courier::new(&config, quarantine, progress.clone(), clock.clone())?);
        let (passed, pressure) = (Box::new(passed), Box::new(pressure));
        let source = Source::new(source::Parts { reader, file, clock, chooser, pressure, progress, passed });
        Ok(Self { config, source, courier, client: client.map(Arc::new) })
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
