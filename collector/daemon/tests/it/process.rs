//! An emberd process under test: started with a data directory of its own on free ports, ended by its pid.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up: generous, for a busy two-core machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A data directory and the settings an emberd runs there with; survives the process.
pub struct Home {
    pub dir: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

impl Home {
    /// SQLite, a local log, nothing to forward to.
    pub fn new() -> Self {
        // For the tests' own HTTP clients; whoever comes second finds it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("emberd-it-").tempdir().unwrap();
        let mut home = Self { dir, settings: Vec::new() };
        for (key, value) in [
            ("EMBERD_INTAKE_GRPC", "127.0.0.1:0"),
            ("EMBERD_INTAKE_HTTP", "127.0.0.1:0"),
            ("EMBERD_API_LISTEN", "127.0.0.1:0"),
            ("EMBERD_PHOENIX_OTLP", ""),
            ("EMBERD_RECORDER_ROOT_WAIT", "2s"),
            ("EMBERD_ARCHIVE_EVERY", "1s"),
        ] {
            home.set(key, value);
        }
        home
    }

    /// Overrides a setting by its environment name.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.into(), value.into()));
        self
    }

    /// A configuration file, for what has no environment name.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.path().join("emberd.toml")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The `emberd` command with this home's settings and nothing of the test's own environment that emberd would read.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emberd"));
        command.args(arguments).arg("--data-dir").arg(self.path());
        if self.config().exists() {
            command.arg("--config").arg(self.config());
        }
        for (key, _) in std::env::vars() {
            if key.starts_with("EMBERD_")
                || key.starts_with("PHOENIX_")
                || ["DATABASE_URL", "REDIS_URL", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"].contains(&key.as_str())
            {
                command.env_remove(key);
            }
        }
        command.envs(self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()))).stdin(Stdio::null());
        command
    }

    /// `emberd ledger --check`, beside the daemon or without it: every sum is right.
    pub fn ledger_is_right(&self) {
        let output = self.command(&["ledger", "--check", "--all"]).output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}\n{}", said(&output.stdout), said(&output.stderr));
    }

    /// Starts `emberd serve` and waits until it has bound its ports.
    pub fn start(&self) -> Emberd {
        let _ = std::fs::remove_file(self.path().join("run.json"));
        let log_path = self.path().join("stderr.log");
        let log = File::options().create(true).append(true).open(&log_path).unwrap();
        let mut command = self.command(&["serve"]);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut emberd = Emberd { child, log_path, run: Value::Null };
        let run = self.path().join("run.json");
        emberd.run = wait_for("emberd binds its ports", || {
            if let Some(status) = emberd.child.try_wait().unwrap() {
                panic!("emberd ended with {status} before it was up:\n{}", emberd.said());
            }
            serde_json::from_slice(&std::fs::read(&run).ok()?).ok()
        });
        emberd
    }
}

/// A running `emberd serve`; killed if the test forgets it.
pub struct Emberd {
    child: Child,
    log_path: PathBuf,
    run: Value,
}

impl Emberd {
    pub fn grpc(&self) -> String {
        format!("http://{}", self.run["grpc"].as_str().unwrap())
    }

    pub fn http(&self) -> String {
        format!("http://{}/v1/traces", self.run["http"].as_str().unwrap())
    }

    pub fn api(&self) -> String {
        format!("http://{}", self.run["api"].as_str().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it ever had, in MiB.
    pub fn rss_max_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    }

    /// What it wrote to standard error so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// kill -9, as a power switch does it to a process.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns how it ended.
    pub fn terminate(self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }

    /// Waits until it has ended; returns how.
    pub fn ended(mut self) -> ExitStatus {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("emberd did not stop:\n{}", self.said());
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(done.success());
    }

    /// `GET` of the API, as JSON.
    pub async fn get(&self, path: &str) -> Value {
        let answer = reqwest::get(format!("{}{path}", self.api())).await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("GET {path}: {status} {text}"))
    }

    /// Waits until all that was acknowledged is recorded and published, rootless traces included. It may take long, if it moves.
    pub async fn recorded(&self) {
        let mut since = Instant::now();
        let mut last = Value::Null;
        loop {
            let status = self.get("/api/status").await;
            let pending = status["ledger"]["consumers"]["recorder"]["pending"].as_u64().unwrap();
            let counts = &status["database"]["counts"];
            // Traces without a root get their rows after the wait; then there is nothing more to come.
            if pending == 0 && counts["rootless"] == 0 && counts["unpublished"] == 0 {
                return;
            }
            let now = serde_json::json!([pending, counts]);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "not recorded: {status:#}\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The books balance: received = accepted + rejected + refused, and what was accepted is somewhere with every consumer. The end
    /// of every story.
    pub async fn sums_are_right(&self, home: &Home) {
        let status = self.get("/api/status").await;
        let ledger = &status["ledger"];
        let part = |of: &Value, name: &str| of[name].as_i64().unwrap_or_else(|| panic!("{name}: {status:#}"));
        let [accepted, rejected, refused] =
            ["accepted_spans", "rejected_spans", "refused_spans"].map(|name| part(ledger, name));
        assert_eq!(part(ledger, "received_spans"), accepted + rejected + refused, "{status:#}");
        const PARTS: [&str; 7] = ["origin", "done", "duplicate", "pending", "quarantined", "shed", "lost"];
        for (name, consumer) in ledger["consumers"].as_object().unwrap() {
            let sum: i64 = PARTS.map(|name| part(consumer, name)).iter().sum();
            assert_eq!(sum, accepted, "{name}: {status:#}");
        }
        home.ledger_is_right();
    }
}

impl Drop for Emberd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
