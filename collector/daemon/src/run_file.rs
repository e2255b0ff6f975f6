//! `DATA_DIR/run.json`: where the running daemon listens, for the commands and scripts that want to reach it.
//!
//! On disk: `{"pid", "grpc", "http", "api"}`, addresses as bound. There while the daemon runs; a kill -9 leaves it behind, so whoever reads
//! it must be ready for nobody to answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::wiring::Addresses;

/// The file of this process, removed when this is dropped.
pub(crate) struct OwnRunFile(PathBuf);

impl OwnRunFile {
    pub(crate) fn write(data_dir: &Path, addresses: &Addresses) -> anyhow::Result<Self> {
        let mut run = serde_json::to_value(addresses)?;
        run["pid"] = std::process::id().into();
        let (path, temp) = (data_dir.join("run.json"), data_dir.join("run.json.tmp"));
        std::fs::write(&temp, serde_json::to_vec(&run)?)?;
        std::fs::rename(&temp, &path)?;
        Ok(Self(path))
    }
}

/// What another process wrote there.
#[derive(Debug, Deserialize)]
pub(crate) struct RunFile {
    pub(crate) pid: u32,
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

    /// Whether a process of this pid runs: after a kill -9 the file is still there.
    pub(crate) fn is_alive(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

impl Drop for OwnRunFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
