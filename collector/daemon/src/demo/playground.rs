//! The playground's process: a Python program that sends LLM traces through the real OpenTelemetry SDK.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::wiring::Addresses;

/// What the program is; it goes into the data directory, where one can read and change it.
const PROGRAM: &str = include_str!("playground.py");

/// A trace that the playground has sent.
#[derive(Clone, Debug)]
pub(super) struct Try {
    pub(super) trace: String,
    pub(super) prompt: String,
}

/// The running playground.
pub(super) struct Playground {
    child: Child,
    tries: Lines<BufReader<ChildStdout>>,
    said: std::path::PathBuf,
}

impl Playground {
    pub(super) fn start(venv: &Path, data_dir: &Path, addresses: &Addresses, rate: f64) -> anyhow::Result<Self> {
        let program = data_dir.join("playground.py");
        let said = data_dir.join("playground.log");
        std::fs::write(&program, PROGRAM)?;
        let mut child = Command::new(venv.join("bin/python"))
            .arg(&program)
            .args(["--api", &format!("http://{}", addresses.api)])
            .args(["--otlp", &format!("http://{}", addresses.grpc)])
            .args(["--rate", &rate.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&said)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the playground")?;
        let stdout = child.stdout.take().context("the playground has no output")?;
        Ok(Self { child, tries: BufReader::new(stdout).lines(), said })
    }

    /// The next trace it sent.
    pub(super) async fn next(&mut self) -> anyhow::Result<Try> {
        let Some(line) = self.tries.next_line().await? else {
            bail!("the playground ended; see {}", self.said.display());
        };
        let (trace, prompt) = line.split_once(' ').context("the playground said something odd")?;
        Ok(Try { trace: trace.into(), prompt: prompt.into() })
    }

    /// Lets it send what it holds, then ends it.
    pub(super) async fn stop(&mut self) {
        if let Some(pid) = self.child.id() {
            let _ = Command::new("kill").arg(pid.to_string()).status().await;
        }
        if tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}
