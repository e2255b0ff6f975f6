//! The processes that are measured: emberd, the bare server and peers on core 0, load and sink on core 1.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::load::Load;

pub(crate) const SERVER: &str = "127.0.0.1:24317";
pub(crate) const API: &str = "127.0.0.1:28317";
const SINK: &str = "127.0.0.1:25317";
/// How long consumers may take for what is left when the load ends.
const DRAIN: Duration = Duration::from_secs(600);

/// A process pinned to a core, ended by its handle.
pub(crate) struct Pinned(Child);

impl Pinned {
    pub(crate) fn start(
        core: u32,
        program: &Path,
        set: impl FnOnce(&mut Command) -> &mut Command,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command
            .args(["-c", &core.to_string()])
            .arg(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self(set(&mut command).spawn().with_context(|| format!("cannot start {}", program.display()))?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// CPU seconds so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(") ").context("odd /proc stat")?.1.split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    /// The most memory it has had, in MiB.
    pub(crate) fn peak_rss_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status()?;
        let since = Instant::now();
        while !self.has_ended() {
            ensure!(since.elapsed() < Duration::from_secs(60), "does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The programs of the rig, and emberd's.
pub(crate) struct Programs {
    pub(crate) rig: PathBuf,
    emberd: PathBuf,
}

impl Programs {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let rig = std::env::var_os("EMBERD_RIG")
            .map(PathBuf::from)
            .context("set EMBERD_RIG to the folder with otlpload, otlpsink and floor")?;
        ensure!(rig.join("otlpload").exists(), "no otlpload in {}", rig.display());
        Ok(Self { rig, emberd: program()? })
    }

    /// Only emberd, where nothing of the rig is needed.
    pub(crate) fn without_rig() -> anyhow::Result<Self> {
        Ok(Self { rig: PathBuf::new(), emberd: program()? })
    }

    /// With a recorder, and this configuration file.
    pub(crate) fn configured(&self, config: &Path, data: &Path) -> anyhow::Result<Pinned> {
        let how = How { forward: false, ..How::WHOLE };
        self.serve(how, "intake,consume,api", data, &["--config".as_ref(), config.as_os_str()])
    }

    /// The bare server that discards.
    pub(crate) fn floor(&self) -> anyhow::Result<Pinned> {
        Pinned::start(0, &self.rig.join("floor"), |command| command.args(["--listen", SERVER]))
    }

    /// A backend that counts and forgets.
    pub(crate) fn sink(&self) -> anyhow::Result<Pinned> {
        Pinned::start(1, &self.rig.join("otlpsink"), |command| command.args(["--listen", SINK]))
    }

    pub(crate) fn emberd(&self, how: How, data: &Path) -> anyhow::Result<Pinned> {
        let roles = if how.record || how.forward || how.archive { "intake,consume,api" } else { "intake,api" };
        self.serve(how, roles, data, &[])
    }

    /// With a recorder and evaluation, and this configuration file.
    pub(crate) fn judging(&self, config: &Path, data: &Path) -> anyhow::Result<Pinned> {
        let how = How { forward: false, ..How::WHOLE };
        self.serve(how, "intake,consume,evaluate,api", data, &["--config".as_ref(), config.as_os_str()])
    }

    fn serve(&self, how: How, roles: &str, data: &Path, more: &[&OsStr]) -> anyhow::Result<Pinned> {
        Pinned::start(0, &self.emberd, |command| {
            unset(command);
            let forwarding = if how.forward { format!("http://{SINK}") } else { String::new() };
            command
                .args(["serve", "--role", roles, "--data-dir"])
                .arg(data)
                .args(more)
                .env("EMBERD_INTAKE_GRPC", SERVER)
                .env("EMBERD_INTAKE_HTTP", "127.0.0.1:0")
                .env("EMBERD_API_LISTEN", API)
                .env("EMBERD_LOG_DURABILITY", how.durability)
                .env("EMBERD_LOG_KEEP", how.keep)
                .env("EMBERD_RECORDER_ENABLED", how.record.to_string())
                .env("EMBERD_ARCHIVE_ENABLED", how.archive.to_string())
                .env("EMBERD_ARCHIVE_EVERY", "1s")
                .env("EMBERD_PHOENIX_VERIFY", "false")
                .env("EMBERD_PHOENIX_OTLP", forwarding)
        })
    }

    /// A load of the given shape from this program; the report that it prints.
    pub(crate) fn load(load: &Load) -> anyhow::Result<Value> {
        let output = Command::new("taskset")
            .args(["-c", "1"])
            .arg(std::env::current_exe()?)
            .args(load.arguments())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "the load ended with {}", output.status);
        let report: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(report["requests_failed"] == 0, "refused: {report}");
        Ok(report)
    }
}

/// emberd's program, built beside this one.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let emberd = std::env::current_exe()?.with_file_name("emberd");
    ensure!(emberd.exists(), "no {}: build it with `cargo build --release -p emberd-daemon`", emberd.display());
    Ok(emberd)
}

/// What the bench is told is not emberd's to read.
pub(crate) fn unset(command: &mut Command) {
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("EMBERD_")) {
        command.env_remove(key);
    }
}

/// What emberd does with the spans.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) durability: &'static str,
    pub(crate) record: bool,
    pub(crate) forward: bool,
    pub(crate) archive: bool,
    /// How long the log keeps what every consumer has passed.
    pub(crate) keep: &'static str,
}

impl How {
    pub(crate) const DURABLE: Self =
        Self { durability: "sync", record: false, forward: false, archive: false, keep: "24h" };
    pub(crate) const WHOLE: Self =
        Self { durability: "sync", record: true, forward: true, archive: false, keep: "24h" };

    /// Waits until every consumer has passed all that was acknowledged; that nothing is missing is checked, not assumed.
    pub(crate) fn drained(self, acked: u64) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let ledger = &status()?["ledger"];
            let accepted = ledger["accepted_spans"].as_u64().unwrap_or(0);
            ensure!(accepted == acked, "{acked} spans acknowledged, {accepted} in the log");
            let spans = |consumer: &str, what: &str| ledger["consumers"][consumer][what].as_u64().unwrap_or(0);
            let recorded = spans("recorder", "done") + spans("recorder", "duplicate") == acked;
            let archived = !self.archive || spans("archive", "done") == acked;
            if archived && (!self.record || recorded) && (!self.forward || spans("phoenix", "sent") == acked) {
                return Ok(());
            }
            if since.elapsed() > DRAIN {
                bail!("not drained after ten minutes: {ledger}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What emberd says of itself.
pub(crate) fn status() -> anyhow::Result<Value> {
    let http = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    http.block_on(async { Ok(reqwest::get(&format!("http://{API}/api/status")).await?.json().await?) })
}

/// A folder for one run's data, on the disk that holds the current directory.
pub(crate) fn data() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("emberd-bench-").tempdir_in(std::env::current_dir()?)?)
}

/// Waits until emberd answers.
pub(crate) fn ready() -> anyhow::Result<()> {
    let since = Instant::now();
    while status().is_err() {
        ensure!(since.elapsed() < Duration::from_secs(30), "emberd does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What the log's files hold.
pub(crate) fn log_bytes(data: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(data.join("log"))? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}
