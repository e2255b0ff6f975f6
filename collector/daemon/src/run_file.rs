//! `DATA_DIR/run.json`: where the running daemon listens, for the commands and scripts that want to reach it.
//!
//! On disk: `{"pid", "grpc", "http", "api", "rolled_back"}`, addresses as bound; renamed into place, so that no reader finds half of it. There while the daemon runs; a kill -9 leaves it behind, so whoever reads
//! it must be ready for nobody to answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::wiring::Addresses;

/// The file of this process, removed when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct OwnRunFile(Arc<Own>);

struct Own {
    path: PathBuf,
    addresses: Addresses,
}

impl OwnRunFile {
    /// Says where it listens, and whether it began rolled back.
    pub(crate) fn write(data_dir: &Path, addresses: Addresses, rolled_back: bool) -> anyhow::Result<Self> {
        let own = Own { path: data_dir.join("run.json"), addresses };
        own.write(rolled_back)?;
        Ok(Self(Arc::new(own)))
    }

    /// Says that what works on the tables rests from now on.
    pub(crate) fn rolled_back(&self) {
        if let Err(error) = self.0.write(true) {
            tracing::error!(%error, "cannot write run.json: `emberd rollback` waits for it");
        }
    }
}

impl Own {
    fn write(&self, rolled_back: bool) -> anyhow::Result<()> {
        let mut run = serde_json::to_value(self.addresses)?;
        run["pid"] = std::process::id().into();
        run["rolled_back"] = rolled_back.into();
        let temp = self.path.with_extension("json.tmp");
        std::fs::write(&temp, serde_json::to_vec(&run)?)?;
        Ok(std::fs::rename(&temp, &self.path)?)
    }
}

/// What another process wrote there.
#[derive(Debug, Deserialize)]
pub(crate) struct RunFile {
    pub(crate) pid: u32,
    /// What works on the tables rests. Absent in what older emberds wrote.
    #[serde(default)]
    pub(crate) rolled_back: bool,
    grpc: SocketAddr,
    http: SocketAddr,
    api: SocketAddr,
}

impl RunFile {
    /// The file of the daemon that ran last in `data_dir`; none: it ended properly, or there was none.
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(data_dir.join("run.json")).ok()?).ok()
    }

    /// Where the API of the daemon in `data_dir` listened last.
    pub(crate) fn api(data_dir: &Path) -> Option<String> {
        Self::read(data_dir).map(|run| run.api_url())
    }

    pub(crate) fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// Whether it listens at this address, or at all addresses of this port.
    pub(crate) fn listens_at(&self, address: SocketAddr) -> bool {
        let covers = |own: SocketAddr| {
            own.port() == address.port()
                && (own.ip() == address.ip() || own.ip().is_unspecified() || address.ip().is_unspecified())
        };
        [self.grpc, self.http, self.api].into_iter().any(covers)
    }

    /// Whether an emberd of this pid runs: after a kill -9 the file is still there, and the pid may be another's.
    pub(crate) fn is_alive(&self) -> bool {
        let name = std::fs::read_to_string(Path::new("/proc").join(self.pid.to_string()).join("comm"));
        name.is_ok_and(|name| name.trim() == "emberd")
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
