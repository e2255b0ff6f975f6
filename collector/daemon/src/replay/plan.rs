//! What is replayed, where to, and how far it is: two small files that make a replay resumable.
//!
//! On disk: `plan.json`, written once; `progress.json`, replaced by temp, fsync, rename.
//! Kept by: `tests`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use emberd_log::replace_file;
use emberd_model::{Offset, UnixNanos};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::source::Position;

/// A version that an older emberd must not go on with.
const VERSION: u32 = 1;

/// Where spans are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Into {
    /// The configured Phoenix, read back as always.
    Phoenix,
    /// `prompt_traces` and the rollups of the configured database.
    Recorder,
    /// One rule on live traffic.
    Rule(String),
    /// An OTLP endpoint.
    Otlp(String),
}

/// Where spans are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum From {
    /// What is archived, and from the log what is not yet
    Both,
    /// The log alone
    Log,
    /// The archive alone
    Archive,
}

/// A replay, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    version: u32,
    /// A name that follows from what was asked for: asked for again, it goes on.
    name: String,
    pub(crate) into: Into,
    pub(crate) source: From,
    /// Spans received from then on, in ns since 1970 ..
    from_ns: u64,
    /// .. and before.
    to_ns: u64,
    /// Whole traces of this prompt alone: its id, or the text that names it.
    pub(crate) prompt: Option<String>,
    /// Spans a second; 0: as fast as it goes.
    #[serde(skip)]
    pub(crate) rate: u64,
}

impl Plan {
    /// The plan of these wishes; `words` is how they were said.
    pub(crate) fn new(words: &str, into: Into, source: From, times: (UnixNanos, UnixNanos)) -> Self {
        let name = Uuid::new_v5(&Uuid::NAMESPACE_URL, words.as_bytes()).simple().to_string();
        let (from_ns, to_ns) = (times.0.0, times.1.0);
        Self { version: VERSION, name: name[..12].to_owned(), into, source, from_ns, to_ns, prompt: None, rate: 0 }
    }

    /// From when on spans were received.
    pub(crate) fn from(&self) -> UnixNanos {
        UnixNanos(self.from_ns)
    }

    /// Before when they were received.
    pub(crate) fn to(&self) -> UnixNanos {
        UnixNanos(self.to_ns)
    }

    /// Where it is kept.
    pub(crate) fn dir(&self, data_dir: &Path) -> PathBuf {
        data_dir.join("replays").join(&self.name)
    }

    /// The plan that `dir` holds already, with this one's pace; else this one, written there.
    pub(super) fn kept_in(self, dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("plan.json");
        if !path.exists() {
            replace_file(&path, &serde_json::to_vec_pretty(&self)?)?;
            return Ok(self);
        }
        let kept: Self = read(&path)?.unwrap_or_else(|| self.clone());
        if kept.version > VERSION {
            bail!("{} was begun by a newer emberd: end it with that one, or remove {}", kept.name, dir.display());
        }
        Ok(Self { rate: self.rate, ..kept })
    }
}

/// How far the source was fed, and where the replay's own log stood then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marks {
    pub(crate) position: Option<Position>,
    #[serde(with = "offset")]
    pub(crate) head: Offset,
}

impl Marks {
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        Ok(read(&dir.join("progress.json"))?.unwrap_or_default())
    }

    pub(super) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        Ok(replace_file(&dir.join("progress.json"), &serde_json::to_vec(self)?)?)
    }
}

mod offset {
    use super::{Deserialize, Offset};

    pub(super) fn serialize<S: serde::Serializer>(offset: &Offset, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(offset.0)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Offset, D::Error> {
        u64::deserialize(from).map(Offset)
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
