//! A Phoenix of one's own: installed into a Python environment, started on loopback, ended by its pid.
//!
//! Promise: nothing outside the given directories is touched; the process dies with its handle.
//! Not here: the demo's playground; a Phoenix that an operator runs (emberd only talks to that one).
//! Kept by: `daemon/tests/it/phoenix.rs`, which runs on it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

/// The version that emberd is tested against; what [`install`] installs.
pub const VERSION: &str = "20.26.1";

/// A Phoenix could not be installed, started or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that is needed is not there or cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// Its path or name.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A step of the installation failed; what it said comes with it.
    #[error("{step} failed: {said}")]
    Install {
        /// Which step.
        step: &'static str,
        /// The last of what it printed.
        said: String,
    },
    /// It ended before it was ready.
    #[error("phoenix ended with {status}; its log is {}", log.display())]
    Ended {
        /// How.
        status: std::process::ExitStatus,
        /// Where it says why.
        log: PathBuf,
    },
    /// It did not answer in time.
    #[error("phoenix was not ready within {patience:?}; its log is {}", log.display())]
    NotReady {
        /// How long it was waited for.
        patience: Duration,
        /// Where it says why.
        log: PathBuf,
    },
    /// No free port, or its directory cannot be used.
    #[error("cannot prepare phoenix")]
    Prepare(#[from] std::io::Error),
}

/// Whether the Python environment at `venv` holds a Phoenix.
#[must_use]
pub fn installed(venv: &Path) -> bool {
    venv.join("bin/phoenix").exists()
}

/// Makes a Python environment at `venv` and installs Phoenix into it by pip: about a minute.
pub async fn install(venv: &Path) -> Result<(), Error> {
    step("making a Python environment", Command::new("python3").args(["-m", "venv"]).arg(venv)).await?;
    let requirement = format!("arize-phoenix=={VERSION}");
    let pip = venv.join("bin/pip");
    let mut command = Command::new(pip);
    command.args(["install", "--quiet", "--disable-pip-version-check", &requirement]);
    step("installing arize-phoenix", &mut command).await
}

async fn step(step: &'static str, command: &mut Command) -> Result<(), Error> {
    let program = PathBuf::from(command.as_std().get_program());
    let done = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let done = done.map_err(|source| Error::Run { program, source })?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let tail = said.trim().lines().rev().take(3).collect::<Vec<_>>();
    Err(Error::Install { step, said: tail.into_iter().rev().collect::<Vec<_>>().join("; ") })
}

/// Where a Phoenix listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// REST, GraphQL, UI and OTLP/HTTP.
    pub http: u16,
    /// OTLP/gRPC.
    pub grpc: u16,
}

impl Ports {
    /// Two loopback ports that nobody uses just now.
    pub fn free() -> std::io::Result<Self> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (http, grpc) = (free()?, free()?);
        Ok(Self { http: http.local_addr()?.port(), grpc: grpc.local_addr()?.port() })
    }

    /// These, where both are free; else two others.
    pub fn preferred(http: u16, grpc: u16) -> std::io::Result<Self> {
        let usable = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if usable(http) && usable(grpc) { Ok(Self { http, grpc }) } else { Self::free() }
    }
}

/// A running Phoenix; killed when dropped.
pub struct Phoenix {
    child: Child,
    /// Where it listens.
    pub ports: Ports,
    log: PathBuf,
}

impl Phoenix {
    /// Starts the Phoenix in `venv` with its database in `dir`. It is not ready yet: see [`Phoenix::ready`].
    pub fn start(venv: &Path, dir: &Path, ports: Ports) -> Result<Self, Error> {
        Self::start_with(venv, dir, ports, &[])
    }

    /// The same with further settings of its own, such as `PHOENIX_ENABLE_AUTH`.
    pub fn start_with(venv: &Path, dir: &Path, ports: Ports, settings: &[(&str, &str)]) -> Result<Self, Error> {
        std::fs::create_dir_all(dir)?;
        let log = dir.join("phoenix.log");
        let file = std::fs::File::options().create(true).append(true).open(&log)?;
        let program = venv.join("bin/phoenix");
        let child = Command::new(&program)
            .arg("serve")
            .env("PHOENIX_WORKING_DIR", dir)
            .env("PHOENIX_HOST", "127.0.0.1")
            .env("PHOENIX_PORT", ports.http.to_string())
            .env("PHOENIX_GRPC_PORT", ports.grpc.to_string())
            .env("PHOENIX_TELEMETRY_ENABLED", "false")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Run { program, source })?;
        Ok(Self { child, ports, log })
    }

    /// Its REST API and UI.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// Its OTLP/gRPC door.
    #[must_use]
    pub fn otlp(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.grpc)
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it answers; on an empty directory that takes it about 20 s.
    pub async fn ready(&mut self, patience: Duration) -> Result<(), Error> {
        let since = Instant::now();
        let version = format!("{}/arize_phoenix_version", self.url());
        while since.elapsed() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Err(Error::Ended { status, log: self.log.clone() });
            }
            if reqwest::get(&version).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(Error::NotReady { patience, log: self.log.clone() })
    }

    /// SIGTERM, then SIGKILL when that takes longer than `patience`.
    pub async fn terminate(mut self, patience: Duration) -> std::io::Result<()> {
        if let Some(pid) = self.child.id() {
            let mut kill = Command::new("kill");
            kill.arg(pid.to_string()).stdin(Stdio::null()).status().await?;
        }
        if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }

    /// SIGKILL: what it holds in memory is lost.
    pub async fn kill(mut self) -> std::io::Result<()> {
        self.child.kill().await
    }
}
