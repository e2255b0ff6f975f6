//! A Phoenix that runs, and forwarders that send to it from a log of their own.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use emberd_consumers::Progress;
use emberd_consumers::forwarder::{Backoff, Config, Endpoint, Files, Forwarder, PhoenixConfig};
use emberd_consumers::quarantine::{Item, Quarantine};
use emberd_log::{Appender, DiskLog, Entry, Log, RealDisk};
use emberd_model::clock::Still;
use emberd_model::{Flags, Offset, UnixNanos, wire};
use emberd_phoenix::process::{Phoenix, Ports};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(150);

/// The exports of real SDKs, with their names.
pub(crate) fn library() -> Vec<(String, Bytes)> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/dev");
    let dir = std::env::var("EMBERD_FIXTURES").unwrap_or_else(|_| beside.into());
    let files = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("EMBERD_FIXTURES {dir}: {error}"));
    let paths = files.map(|file| file.unwrap().path()).filter(|path| path.to_str().unwrap().ends_with(".otlp.pb"));
    paths.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap().into())).collect()
}

/// The one Phoenix.
pub(crate) struct World {
    phoenix: Option<Phoenix>,
    venv: PathBuf,
    dir: TempDir,
    ports: Ports,
    client: emberd_phoenix::Client,
    http: reqwest::Client,
}

impl World {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let venv = std::env::var("EMBERD_PHOENIX")
            .map(PathBuf::from)
            .unwrap_or_else(|_| PathBuf::from(std::env::var("HOME").expect("HOME")).join(".cache/emberd/phoenix"));
        assert!(
            emberd_phoenix::process::installed(&venv),
            "no phoenix in {}: set EMBERD_PHOENIX, or run make test",
            venv.display()
        );
        let ports = Ports::free().unwrap();
        let url = format!("http://127.0.0.1:{}", ports.http);
        let client = emberd_phoenix::Client::new(&url, Duration::from_secs(30)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self { phoenix: None, venv, dir, ports, client, http: reqwest::Client::new() };
        world.restart().await;
        world
    }

    /// Starts Phoenix on its database.
    pub(crate) async fn restart(&mut self) {
        let mut phoenix = Phoenix::start(&self.venv, self.dir.path(), self.ports).unwrap();
        phoenix.ready(PATIENCE).await.unwrap();
        self.phoenix = Some(phoenix);
        assert_eq!(self.client.version().await.unwrap(), emberd_phoenix::process::VERSION);
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.phoenix.take().unwrap().kill().await.unwrap();
    }

    pub(crate) async fn end(mut self) {
        self.kill().await;
    }

    pub(crate) fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.grpc)
    }

    pub(crate) fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// The spans of a request that Phoenix does not hold under their own trace, asked one by one and in all projects.
    pub(crate) async fn missing(&self, body: &[u8]) -> Vec<String> {
        let ids: Vec<_> = wire::spans(body).map(|found| (found.span.trace_id, found.span.span_id)).collect();
        let spans: Vec<_> = ids.iter().map(|(_, span)| *span).collect();
        let found = self.client.whereabouts(&spans).await.unwrap();
        let missing = ids.iter().filter(|(trace, span)| found.get(span) != Some(trace));
        missing.map(|(trace, span)| format!("{trace} {span}")).collect()
    }

    pub(crate) async fn graphql(&self, query: &str) -> Value {
        let request = self.http.post(format!("{}/graphql", self.http())).json(&serde_json::json!({ "query": query }));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer.get("errors"), None, "{answer}");
        answer["data"].clone()
    }

    pub(crate) async fn get(&self, path: &str) -> Result<String, String> {
        let answer = self.http.get(format!("{}{path}", self.http())).send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        if status.is_success() { Ok(body) } else { Err(format!("{status} {body}")) }
    }
}

/// A log with a forwarder on it.
pub(crate) struct Place {
    dir: TempDir,
    log: Arc<DiskLog>,
    progress: Arc<Progress>,
    appended: Arc<AtomicU64>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Something that goes on appending.
pub(crate) struct Going {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Going {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

impl Place {
    pub(crate) async fn new(world: &World, endpoint: Endpoint) -> Self {
        Self::with(world, endpoint, PhoenixConfig::at(&world.http())).await
    }

    pub(crate) async fn with(_world: &World, endpoint: Endpoint, phoenix: PhoenixConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Still::at(UnixNanos(1)));
        let config = emberd_log::Config {
            budget_bytes: 256 << 20,
            segment_bytes: 16 << 20,
            ..emberd_log::Config::in_dir(dir.path().join("log"))
        };
        let (log, _) = DiskLog::open(config, Arc::new(RealDisk), clock.clone()).unwrap();
        let progress = Arc::new(Progress::forwarding("phoenix", true));
        let forwarder = Forwarder::new(
            Config {
                backoff: Backoff { max: Duration::from_secs(2), ..Backoff::default() },
                ..Config::phoenix("phoenix", endpoint, phoenix)
            },
            log.reader(Offset(0)),
            Files {
                disk: Arc::new(RealDisk),
                dir: dir.path().to_owned(),
                quarantine: Quarantine::open(&dir.path().join("quarantine")).unwrap(),
            },
            clock,
            progress.clone(),
            |_| (),
            |_| 0.0,
        )
        .unwrap();
        let stop = CancellationToken::new();
        #[allow(clippy::disallowed_methods, reason = "the test owns the task, and waits for it")]
        let task = tokio::spawn(forwarder.run(stop.clone()));
        Self { dir, log, progress, appended: Arc::default(), stop, task }
    }

    pub(crate) async fn append(&self, body: Bytes) {
        let flags = super::hostile::flags(&body);
        self.append_flagged(body, Some(flags)).await;
    }

    /// Appends a request with these flags, or none.
    pub(crate) async fn append_flagged(&self, body: Bytes, flags: Option<Flags>) {
        append(&self.log, &self.appended, body, flags).await;
    }

    /// Appends a request now and then.
    pub(crate) fn keep_sending(&self, mut body: impl FnMut() -> Bytes + Send + 'static) -> Going {
        let (log, appended, stop) = (self.log.clone(), self.appended.clone(), CancellationToken::new());
        let stopped = stop.clone();
        #[allow(clippy::disallowed_methods, reason = "the test owns the task, and waits for it")]
        let task = tokio::spawn(async move {
            while tokio::time::timeout(Duration::from_millis(500), stopped.cancelled()).await.is_err() {
                append(&log, &appended, body(), Some(Flags::default())).await;
            }
        });
        Going { stop, task }
    }

    /// How many spans were appended.
    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Relaxed)
    }

    pub(crate) fn ledger(&self) -> Value {
        self.progress.ledger(self.log.head())
    }

    /// Waits until the ledger is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        while !is_so(&self.ledger()) {
            assert!(begun.elapsed() < PATIENCE, "never: {what}; {}", self.ledger());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
    }

    /// Waits until the cursor has passed so many spans.
    pub(crate) async fn is_verified_to(&self, spans: u64, what: &str) {
        self.until(what, |_| self.progress.cursor() >= Offset(spans)).await;
    }

    pub(crate) async fn all_is_verified(&self, what: &str) {
        self.is_verified_to(self.appended(), what).await;
        let ledger = self.ledger();
        let aside = ledger["quarantined"].as_u64().unwrap();
        assert_eq!(
            (&ledger["pending"], ledger["verified"].as_u64()),
            (&0.into(), Some(self.appended() - aside)),
            "{ledger}"
        );
    }

    /// Ends the forwarder; what it has put aside.
    pub(crate) async fn end(self) -> Vec<Item> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the forwarder does not stop").unwrap();
        Quarantine::open(&self.dir.path().join("quarantine")).unwrap().list(None).unwrap()
    }
}

async fn append(log: &DiskLog, appended: &AtomicU64, body: Bytes, flags: Option<Flags>) {
    let spans = u32::try_from(wire::spans(&body).count()).unwrap();
    let entry = Entry {
        spans: NonZeroU32::new(spans).expect("a request with spans"),
        received_at: UnixNanos(1),
        key: 0,
        flags: flags.unwrap_or_default(),
        body,
    };
    log.append(entry).await.unwrap();
    appended.fetch_add(u64::from(spans), Relaxed);
}
