//! A Redis of one's own, and caches over it as several processes have them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use emberd_cache::wire::Seal;
use emberd_cache::{Cache, Caches, Config, Limits, State, Value};
use emberd_model::{Clock, UnixNanos};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The real time.
struct Wall;

impl Clock for Wall {
    #[allow(clippy::disallowed_methods, reason = "a test over real processes has the real time")]
    fn now(&self) -> UnixNanos {
        UnixNanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64)
    }
}

pub(crate) struct Server {
    dir: tempfile::TempDir,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("emberd-cache-").tempdir().unwrap();
        let mut server = Self { dir, url: String::new() };
        server.url = server.up();
        server
    }

    fn services(&self, what: &str) -> Command {
        let mut command = Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.ci/services"));
        command.arg(what).arg(self.dir.path());
        command
    }

    /// Starts it again after it was killed, on the same port; it is empty.
    pub(crate) fn up(&self) -> String {
        let started = self.services("redis").output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        String::from_utf8(started.stdout).unwrap().trim().to_owned()
    }

    fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.dir.path().join("pid")).unwrap();
        assert!(Command::new("kill").arg(signal).arg(pid.trim()).status().unwrap().success());
    }

    pub(crate) fn kill(&self) {
        self.signal("-KILL");
    }

    pub(crate) fn stall(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    /// A connection to say anything to it.
    pub(crate) async fn raw(&self) -> redis::aio::MultiplexedConnection {
        redis::Client::open(self.url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.services("stop").stdout(Stdio::null()).status();
    }
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl Value for Text {
    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self(std::str::from_utf8(bytes).ok()?.to_owned()))
    }
}

/// The caches of one process.
pub(crate) struct Process {
    pub(crate) caches: Arc<Caches>,
    pub(crate) texts: Arc<Cache<Text>>,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinSet<()>,
}

impl Process {
    /// Whose Redis is up.
    pub(crate) async fn start(url: &str) -> Self {
        let process = Self::begin(url, None);
        process.until_up().await;
        process
    }

    pub(crate) fn begin(url: &str, seal: Option<&[u8]>) -> Self {
        let config = Config { url: url.to_owned(), prefix: "emberd".to_owned() };
        let caches = Caches::new(Some(config), seal.map(Seal::new), Arc::new(Wall)).unwrap();
        let texts = caches.add("texts", Limits { only_sealed: seal.is_some(), ..Limits::default() });
        let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
        let (runs, stopped) = (Arc::clone(&caches), stop.clone());
        running.spawn(async move { runs.run(stopped).await });
        Self { caches, texts, stop, running }
    }

    pub(crate) async fn until_up(&self) {
        until("Redis is up", || self.caches.state() == State::Up).await;
    }

    /// Until Redis has confirmed every invalidation, and written what there was to write.
    pub(crate) async fn until_said(&self) {
        until("all is said", || self.caches.stats()["redis"]["unsaid"] == 0).await;
    }

    /// Keeps a text as one that was just read, in Redis too.
    pub(crate) async fn keep(&self, key: &str, text: &str) {
        self.until_up().await;
        self.until_said().await;
        let (_, ticket) = self.texts.find_far(key, Duration::MAX).await;
        let written = || self.caches.stats()["redis"]["written"].as_u64().unwrap();
        let before = written();
        self.texts.keep(key, Text(text.to_owned()), &ticket);
        until("it is written", || written() > before).await;
    }

    pub(crate) fn near(&self, key: &str) -> Option<String> {
        match self.texts.find(key)? {
            emberd_cache::Found::Fresh(text, _) => Some(text.0),
            emberd_cache::Found::Old(_) => None,
        }
    }

    pub(crate) async fn far(&self, key: &str) -> Option<String> {
        self.texts.find_far(key, Duration::MAX).await.0.map(|(text, _)| text.0)
    }
}

/// Waits until something is so, which must come soon.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
