//! What the entries of one log's manifest add up to.
//!
//! Promise: an entry is taken only after the one that it says it follows, and only if all that it removes counted and nothing that
//! it adds did. Reading finds the state of one moment, while the writer goes on.
//! Not here: the bytes of an entry (`manifest.rs`), who writes one (`archive.rs`).

use std::collections::BTreeMap;

use super::error::Error;
use super::manifest::{ENTRY_BYTES_MAX, Entry, File, Kind};
use super::name::{self, DataName, MANIFESTS};
use super::place::{Listed, Place, PlaceError};

/// How often reading begins again when entries go away while it reads: the writer wrote a whole one, and removed those before.
const READS_MAX: usize = 8;

/// What is wrong with an entry that is not there.
const MISSING: &str = "it is missing";

/// What counts of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The log.
    pub log: String,
    /// Where the archive of this log goes on; none if nothing was committed.
    pub cursor: Option<u64>,
    /// What the consumer said of the spans up to the cursor.
    pub book: String,
    /// The files that count, by name: in the order of days and offsets.
    pub files: BTreeMap<String, File>,
    /// The last commit of spans that this state saw itself.
    pub(crate) last: Option<(u64, u64)>,
    /// The number of the next entry.
    pub(crate) next: u64,
    /// The check sum of the entry before that; none if there is none.
    pub(crate) previous: Option<[u8; 32]>,
    /// The number of the last whole entry.
    pub(crate) whole: u64,
}

impl State {
    /// Of a log that has no entry.
    pub(crate) fn empty(log: &str) -> Self {
        Self {
            log: log.to_owned(),
            cursor: None,
            book: String::new(),
            files: BTreeMap::new(),
            last: None,
            next: 0,
            previous: None,
            whole: 0,
        }
    }

    /// Reads the state of `log`: the last whole entry, and those after it.
    pub async fn read(place: &dyn Place, log: &str) -> Result<Self, Error> {
        if !name::is_log(log) {
            return Err(Error::Log { log: log.to_owned() });
        }
        let mut tried = 0;
        loop {
            let listed = place.list(&format!("{MANIFESTS}{log}/")).await?;
            match Self::of(place, log, &listed).await {
                Err(Error::Place(PlaceError::Missing { .. }) | Error::Damaged { what: MISSING, .. })
                    if tried < READS_MAX =>
                {
                    tried += 1;
                }
                other => return other,
            }
        }
    }

    /// The state of `log` by entries that are `listed`.
    async fn of(place: &dyn Place, log: &str, listed: &[Listed]) -> Result<Self, Error> {
        let of_log = |file: &Listed| name::entry_of(&file.name).filter(|(of, _)| *of == log).map(|(_, seq)| seq);
        let mut after: Vec<(Entry, [u8; 32])> = Vec::new();
        let mut expected = None;
        let mut seqs: Vec<u64> = listed.iter().filter_map(of_log).collect();
        seqs.sort_unstable();
        for seq in seqs.into_iter().rev() {
            let name = name::entry_name(log, seq);
            if expected.is_some_and(|expected| seq != expected) {
                return Err(Error::Damaged { name: name::entry_name(log, seq + 1), what: MISSING });
            }
            let read = Entry::decode(&name, &place.get(&name, ENTRY_BYTES_MAX).await?)?;
            let whole = read.0.whole;
            after.push(read);
            if whole {
                let mut state = Self::empty(log);
                for (entry, sum) in after.into_iter().rev() {
                    state.take(entry, sum)?;
                }
                return Ok(state);
            }
            expected = seq.checked_sub(1);
        }
        match after.last() {
            None => Ok(Self::empty(log)),
            Some((first, _)) => {
                let name = name::entry_name(log, first.seq.saturating_sub(1));
                Err(Error::Damaged { name, what: MISSING })
            }
        }
    }

    /// Takes an entry whose bytes have the check sum `sum`.
    pub(crate) fn take(&mut self, entry: Entry, sum: [u8; 32]) -> Result<(), Error> {
        if let Some(what) = self.misfit(&entry) {
            return Err(Error::Damaged { name: name::entry_name(&entry.log, entry.seq), what });
        }
        if entry.whole {
            self.files.clear();
            self.whole = entry.seq;
        }
        for name in &entry.removed {
            self.files.remove(name);
        }
        self.files.extend(entry.added.into_iter().map(|file| (file.name.clone(), file)));
        match entry.kind {
            Kind::Commit => self.last = entry.from.zip(entry.to),
            Kind::Back => self.last = None,
            _ => {}
        }
        self.cursor = entry.to;
        self.book = entry.book;
        self.next = entry.seq + 1;
        self.previous = Some(sum);
        Ok(())
    }

    /// Why an entry does not follow this state.
    fn misfit(&self, entry: &Entry) -> Option<&'static str> {
        let repeated = |files: &[File]| {
            let names: std::collections::BTreeSet<_> = files.iter().map(|file| &file.name).collect();
            names.len() != files.len()
        };
        let removed: std::collections::BTreeSet<_> = entry.removed.iter().collect();
        // Where reading begins, a whole entry follows nothing.
        let begins = self.previous.is_none();
        let rules = [
            (entry.log == self.log, "it is of another log"),
            (!begins || entry.whole, "it follows an entry that is not there"),
            (begins || entry.seq == self.next, "it is not the next one"),
            (begins || entry.previous == self.previous, "it follows another entry than the one before it"),
            (
                begins || self.cursor.is_none() || entry.from == self.cursor,
                "it does not go on where the entry before it ended",
            ),
            (!repeated(&entry.added), "it adds a file twice"),
            (
                entry.whole || entry.added.iter().all(|file| !self.files.contains_key(&file.name)),
                "it adds a file again",
            ),
            (removed.len() == entry.removed.len(), "it removes a file twice"),
            (entry.removed.iter().all(|name| self.files.contains_key(name)), "it removes a file that does not count"),
        ];
        rules.into_iter().find(|(kept, _)| !kept).map(|(_, what)| what)
    }

    /// How many spans and bytes the files hold.
    #[must_use]
    pub fn sums(&self) -> (u64, u64) {
        self.files
            .values()
            .fold((0, 0), |(rows, bytes), file| (rows.saturating_add(file.rows), bytes.saturating_add(file.bytes)))
    }

    /// The files of each day, in the order of their offsets.
    pub(crate) fn days(&self) -> BTreeMap<u32, Vec<(&File, DataName)>> {
        let mut days: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for file in self.files.values() {
            // Names were read before they were taken.
            if let Some(name) = file.parts() {
                days.entry(name.day.0).or_default().push((file, name));
            }
        }
        days
    }
}
