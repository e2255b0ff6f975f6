//! `DATA_DIR/run.json`: where the running daemon listens, for the commands and scripts that want to reach it.
//!
//! On disk: `{"pid", "grpc", "http", "api"}`, addresses as bound. There while the daemon runs; a kill -9 leaves it behind, so whoever reads
//! it must be ready for nobody to answer.

use std::path::{Path, PathBuf};

use crate::wiring::Addresses;

/// The file, removed when this is dropped.
pub(crate) struct RunFile(PathBuf);

impl RunFile {
    pub(crate) fn write(data_dir: &Path, addresses: &Addresses) -> anyhow::Result<Self> {
        let mut run = serde_json::to_value(addresses)?;
        run["pid"] = std::process::id().into();
        let (path, temp) = (data_dir.join("run.json"), data_dir.join("run.json.tmp"));
        std::fs::write(&temp, serde_json::to_vec(&run)?)?;
        std::fs::rename(&temp, &path)?;
        Ok(Self(path))
    }

    /// Where the API of the daemon in `data_dir` listened last.
    pub(crate) fn api(data_dir: &Path) -> Option<String> {
        let run: serde_json::Value = serde_json::from_slice(&std::fs::read(data_dir.join("run.json")).ok()?).ok()?;
        Some(format!("http://{}", run["api"].as_str()?))
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
