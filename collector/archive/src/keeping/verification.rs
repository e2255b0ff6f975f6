//! Whether an archive holds what its manifests say, and nothing else.
//!
//! Promise: changes nothing, takes nothing over, and reads one file after the other in pieces. What a writer did meanwhile is no
//! trouble: each trouble is held against the manifest once more in the end.
//! Not here: what is done about it.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::catalogue::Catalogue;
use super::error::Error;
use super::manifest::File;
use super::name::{self, MANIFESTS};
use super::place::{Listed, Place, PlaceError};
use super::state::State;

/// How much of a file is read at once.
const PIECE_BYTES: u64 = 4 << 20;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// How many logs have a manifest.
    pub logs: usize,
    /// How many files count.
    pub files: usize,
    /// The spans in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are as they were written. The others are among the troubles.
    pub files_right: usize,
    /// What is wrong.
    pub troubles: Vec<(String, Trouble)>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.troubles.is_empty()
    }
}

/// What is wrong with a file, or with a log's manifest.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The manifest cannot be read: nothing is known of this log's files.
    #[error("the manifest cannot be read: {0}")]
    Manifest(#[source] Error),
    /// The file is not there.
    #[error("not there")]
    Missing,
    /// The file has another length.
    #[error("{is} bytes long, and was {was}")]
    Length {
        /// What the manifest says.
        was: u64,
        /// What it is.
        is: u64,
    },
    /// The file has another check sum.
    #[error("damaged: its check sum is not the one that it was written with")]
    Damaged,
    /// No manifest names it. Of a log that is written, opening the archive removes it.
    #[error("no manifest names it")]
    Unknown,
}

/// Looks at every file. `told` hears after each file how many of how many are done.
pub async fn verify(place: &dyn Place, mut told: impl FnMut(usize, usize) + Send) -> Result<Report, Error> {
    let mut report = Report::default();
    let (states, unread) = states(place).await?;
    report.troubles.extend(unread);
    report.logs = states.len() + report.troubles.len();
    let files: Vec<&File> = states.values().flat_map(|state| state.files.values()).collect();
    report.files = files.len();
    let listed = place.list("").await?;
    let lengths: BTreeMap<&str, u64> = listed.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
    for (nth, file) in files.iter().enumerate() {
        report.rows = report.rows.saturating_add(file.rows);
        report.bytes = report.bytes.saturating_add(file.bytes);
        match look(place, file, lengths.get(file.name.as_str()).copied()).await? {
            None => report.files_right += 1,
            Some(trouble) => report.troubles.push((file.name.clone(), trouble)),
        }
        told(nth + 1, files.len());
    }
    report.troubles.extend(unknown(&listed, &states).map(|name| (name, Trouble::Unknown)));
    drop_settled(place, &mut report).await?;
    Ok(report)
}

/// The state of each log, and the logs whose manifest cannot be read.
async fn states(place: &dyn Place) -> Result<(BTreeMap<String, State>, Vec<(String, Trouble)>), Error> {
    let (mut states, mut unread) = (BTreeMap::new(), Vec::new());
    for log in Catalogue::logs(place).await? {
        match State::read(place, &log).await {
            Ok(state) => drop(states.insert(log, state)),
            Err(error @ (Error::Damaged { .. } | Error::Version { .. })) => {
                unread.push((format!("{MANIFESTS}{log}/"), Trouble::Manifest(error)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((states, unread))
}

/// What is wrong with a file, of which the place lists so many bytes.
async fn look(place: &dyn Place, file: &File, listed: Option<u64>) -> Result<Option<Trouble>, Error> {
    match listed {
        None => return Ok(Some(Trouble::Missing)),
        Some(is) if is != file.bytes => return Ok(Some(Trouble::Length { was: file.bytes, is })),
        Some(_) => {}
    }
    let (mut sum, mut at) = (Sha256::new(), 0);
    while at < file.bytes {
        let piece = match place.get_range(&file.name, at..(at + PIECE_BYTES).min(file.bytes)).await {
            Err(PlaceError::Missing { .. }) => return Ok(Some(Trouble::Missing)),
            other => other?,
        };
        if piece.is_empty() {
            return Ok(Some(Trouble::Length { was: file.bytes, is: at }));
        }
        at += piece.len() as u64;
        sum.update(&piece);
    }
    let is_right = <[u8; 32]>::from(sum.finalize()) == file.sha256;
    Ok((!is_right).then_some(Trouble::Damaged))
}

/// Files that no manifest names. Of a log whose manifest cannot be read, nothing is known.
fn unknown<'a>(listed: &'a [Listed], states: &'a BTreeMap<String, State>) -> impl Iterator<Item = String> + 'a {
    let named: BTreeSet<&str> = states.values().flat_map(|state| state.files.keys().map(String::as_str)).collect();
    let is_known = move |name: &str| match (name::entry_of(name), name::DataName::parse(name)) {
        (Some((log, seq)), _) => states.get(log).is_none_or(|state| seq >= state.whole),
        (None, Some(data)) => named.contains(name) || !states.contains_key(&data.log) && is_unread(listed, &data.log),
        (None, None) => false,
    };
    listed.iter().map(|file| file.name.as_str()).filter(move |name| !is_known(name)).map(str::to_owned)
}

/// Whether a log has entries.
fn is_unread(listed: &[Listed], log: &str) -> bool {
    listed.iter().any(|file| name::entry_of(&file.name).is_some_and(|(of, _)| of == log))
}

/// Takes out the troubles that a writer's going on explains.
async fn drop_settled(place: &dyn Place, report: &mut Report) -> Result<(), Error> {
    if report.troubles.is_empty() {
        return Ok(());
    }
    let (states, _) = states(place).await?;
    let named: BTreeSet<&String> = states.values().flat_map(|state| state.files.keys()).collect();
    let listed: BTreeSet<String> = place.list("").await?.into_iter().map(|file| file.name).collect();
    report.troubles.retain(|(name, trouble)| match trouble {
        Trouble::Manifest(_) => true,
        Trouble::Missing | Trouble::Length { .. } | Trouble::Damaged => named.contains(name),
        Trouble::Unknown => !named.contains(name) && listed.contains(name),
    });
    Ok(())
}
