//! What counts in a whole archive, for those who only read.
//!
//! Promise: what is given is, for each log, the state of one moment; reading changes nothing, and takes nothing over.
//! Not here: readers that go by file names alone (`docs/decisions/0016-archive-manifest.md` says what those may see).

use std::collections::BTreeSet;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::manifest::File;
use super::name::{self, DataName, MANIFESTS};
use super::place::{Place, PlaceError};
use super::state::State;

/// What counts in an archive, of all logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// The logs, by name.
    pub logs: Vec<State>,
}

/// A file that counts, and what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What the manifest says of it.
    pub file: File,
    /// What its name says.
    pub name: DataName,
}

impl Catalogue {
    /// The names of the logs that have a manifest in this place.
    pub async fn logs(place: &dyn Place) -> Result<BTreeSet<String>, Error> {
        let listed = place.list(MANIFESTS).await?;
        Ok(listed.iter().filter_map(|file| Some(name::entry_of(&file.name)?.0.to_owned())).collect())
    }

    /// Reads the manifests of all logs.
    pub async fn read(place: &dyn Place) -> Result<Self, Error> {
        let mut logs = Vec::new();
        for log in Self::logs(place).await? {
            logs.push(State::read(place, &log).await?);
        }
        Ok(Self { logs })
    }

    /// The files that count, in the order of days, logs and offsets.
    #[must_use]
    pub fn files(&self) -> Vec<Kept> {
        let files = self.logs.iter().flat_map(|state| state.files.values());
        let mut all: Vec<Kept> =
            files.filter_map(|file| Some(Kept { name: file.parts()?, file: file.clone() })).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Whether a file still counts.
    pub async fn counts(place: &dyn Place, name: &DataName) -> Result<bool, Error> {
        let state = State::read(place, &name.log).await?;
        Ok(name.text().is_some_and(|name| state.files.contains_key(&name)))
    }
}

/// Reads a file, and holds it against what the manifest says.
///
/// A file may have gone since the manifest was read, for it became part of a larger one: then the error is
/// [`PlaceError::Missing`], and whoever asked reads the manifest again.
pub async fn read_file(place: &dyn Place, file: &File) -> Result<Bytes, Error> {
    let wrong = |what| Error::File { name: file.name.clone(), what };
    let bytes = match place.get(&file.name, file.bytes).await {
        Err(PlaceError::Long { .. }) => return Err(wrong("longer than it was written")),
        other => other?,
    };
    if bytes.len() as u64 != file.bytes {
        return Err(wrong("shorter than it was written"));
    }
    let counted = bytes.clone();
    let sum = tokio::task::spawn_blocking(move || <[u8; 32]>::from(Sha256::digest(&counted))).await;
    match sum.is_ok_and(|sum| sum == file.sha256) {
        true => Ok(bytes),
        false => Err(wrong("damaged: its check sum is not the one that it was written with")),
    }
}
