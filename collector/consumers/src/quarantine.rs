//! Where what cannot be delivered or recorded is kept, with the reason, until someone decides.
//!
//! Promise: an item is durable when [`Quarantine::put`] returns, and there once however often it is put: a consumer that crashed between
//! putting it and moving its cursor puts it again without doubling it.
//! What someone decided about an item stands beside it until its consumer has done it: whoever decides need not be the daemon.
//! On disk:  `DIR/CONSUMER/OFFSET-FIRSTSPAN.pb`, an encoded `ExportTraceServiceRequest` with the spans as they came, and beside it
//!           `.json` with everything else ([`Item`]). An item is there when its `.json` is; a lone `.pb` or `.tmp` is a crash's and is overwritten.
//!           `.retry` or `.drop`, empty, is a decision.
//! Not here: when something goes into quarantine, and how it is tried again (its consumer knows); the ledger.
//! Kept by:  `tests`, `daemon/tests/it/quarantine.rs`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use emberd_model::Offset;
use emberd_model::ledger::{Account, Book, Fate, Hour, Reason, Tally};
use serde::{Deserialize, Serialize};

/// Something that was put aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Whose work it was.
    pub consumer: String,
    /// The offset of its first span, or of the batch it was in.
    pub offset: u64,
    /// How many spans.
    pub spans: u64,
    /// Their trace ids, lower-case hex, each once.
    pub traces: Vec<String>,
    /// Their span ids, lower-case hex.
    pub span_ids: Vec<String>,
    /// One of a few words: `refused`, `phoenix_drops`, `phoenix_id_collision`, `partial_success`, `unrecordable` ...
    pub reason: String,
    /// What the far end said, cut to 4 KiB.
    pub answer: String,
    /// When, in microseconds since 1970 UTC.
    pub at_micros: i64,
    /// The accounts of the ledger that the spans are booked under.
    #[serde(default)]
    pub accounts: Vec<Booked>,
    /// How often it was tried again since, in vain.
    #[serde(default)]
    pub retries: u32,
}

/// Spans of an item that are booked under one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booked {
    /// The hour in which they were received, counted from 1970 UTC.
    pub hour: u32,
    /// Their project.
    pub project: String,
    /// How many.
    pub spans: u64,
}

/// What someone decided about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its consumer is to try it once more.
    Retry,
    /// It is given up: counted as shed, and removed.
    Drop,
}

impl Decision {
    const ALL: [Self; 2] = [Self::Retry, Self::Drop];

    fn extension(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Drop => "drop",
        }
    }
}

/// Why a span that someone gave up by hand was shed.
pub const DROPPED: &str = "dropped_by_hand";

/// The longest answer that is kept.
const ANSWER_BYTES_MAX: usize = 4096;

/// A directory of items, shared by all consumers.
#[derive(Clone, Debug)]
pub struct Quarantine {
    dir: PathBuf,
}

impl Quarantine {
    /// The quarantine in `dir`, which is made if missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.into() })
    }

    /// Puts spans aside, durably; says whether they were not there yet. Blocks on the disk.
    pub fn put(&self, item: &Item, body: &Bytes) -> io::Result<bool> {
        let dir = self.dir.join(plain(&item.consumer));
        fs::create_dir_all(&dir)?;
        let path = self.path(&item.consumer, &item.name());
        let described = path.with_extension("json");
        if described.exists() {
            return Ok(false);
        }
        let mut item = item.clone();
        item.answer.truncate(item.answer.floor_char_boundary(ANSWER_BYTES_MAX));
        durable(&path.with_extension("pb"), body)?;
        durable(&described, &serde_json::to_vec_pretty(&item)?)?;
        File::open(&dir)?.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        Ok(true)
    }

    /// All items of a consumer, or of all, in the order of their offsets.
    pub fn list(&self, consumer: Option<&str>) -> io::Result<Vec<Item>> {
        let mut items = Vec::new();
        for dir in fs::read_dir(&self.dir)? {
            let dir = dir?;
            let wanted = consumer.is_none_or(|consumer| dir.file_name() == *plain(consumer));
            if wanted && dir.file_type()?.is_dir() {
                read_all(&dir.path(), &mut items)?;
            }
        }
        items.sort_by(|a, b| (a.offset, &a.consumer, &a.span_ids).cmp(&(b.offset, &b.consumer, &b.span_ids)));
        Ok(items)
    }

    /// The spans of an item, as they came.
    pub fn body(&self, item: &Item) -> io::Result<Bytes> {
        let path = self.path(&item.consumer, &item.name());
        fs::read(path.with_extension("pb")).map(Bytes::from)
    }

    /// Decides about an item, durably. What was decided before and not yet done gives way.
    pub fn decide(&self, item: &Item, decision: Decision) -> io::Result<()> {
        let path = self.path(&item.consumer, &item.name());
        for other in Decision::ALL {
            remove(&path.with_extension(other.extension()))?;
        }
        File::create(path.with_extension(decision.extension()))?.sync_all()?;
        self.sync(&item.consumer)
    }

    /// The decisions about a consumer's items that are not done yet, in the order of their offsets.
    pub fn decided(&self, consumer: &str) -> io::Result<Vec<(Item, Decision)>> {
        let mut decided = Vec::new();
        let dir = match fs::read_dir(self.dir.join(plain(consumer))) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(decided),
            Err(error) => return Err(error),
        };
        for entry in dir {
            let path = entry?.path();
            let decision = Decision::ALL
                .into_iter()
                .find(|decision| path.extension().is_some_and(|extension| extension == decision.extension()));
            let Some(decision) = decision else { continue };
            match fs::read(path.with_extension("json")) {
                Ok(json) => decided.push((item_of(&path, &json)?, decision)),
                // It was done, and a crash left this behind.
                Err(error) if error.kind() == io::ErrorKind::NotFound => remove(&path)?,
                Err(error) => return Err(error),
            }
        }
        decided.sort_by_key(|(item, _)| item.offset);
        Ok(decided)
    }

    /// It was tried again in vain: the item stays, with the new answer.
    pub fn stays(&self, item: &Item, answer: &str) -> io::Result<()> {
        let path = self.path(&item.consumer, &item.name());
        let mut item = Item { retries: item.retries + 1, answer: answer.to_owned(), ..item.clone() };
        item.answer.truncate(item.answer.floor_char_boundary(ANSWER_BYTES_MAX));
        durable(&path.with_extension("json"), &serde_json::to_vec_pretty(&item)?)?;
        remove(&path.with_extension(Decision::Retry.extension()))?;
        self.sync(&item.consumer)
    }

    /// Removes an item by its name, durably, if it is there.
    pub fn remove(&self, consumer: &str, name: &str) -> io::Result<()> {
        let path = self.path(consumer, name);
        remove(&path.with_extension("json"))?;
        if !self.dir.join(plain(consumer)).exists() {
            return Ok(());
        }
        self.sync(consumer)?;
        for extension in Decision::ALL.map(Decision::extension).into_iter().chain(["pb"]) {
            remove(&path.with_extension(extension))?;
        }
        self.sync(consumer)
    }

    fn path(&self, consumer: &str, name: &str) -> PathBuf {
        self.dir.join(plain(consumer)).join(format!("{}.json", plain(name)))
    }

    fn sync(&self, consumer: &str) -> io::Result<()> {
        File::open(self.dir.join(plain(consumer)))?.sync_all()
    }

    /// Bytes that an item takes on disk.
    pub fn bytes(&self, item: &Item) -> io::Result<u64> {
        let path = self.path(&item.consumer, &item.name());
        let size = |path: &Path| match fs::metadata(path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        };
        Ok(size(&path)? + size(&path.with_extension("pb"))?)
    }

    /// How many spans of a consumer are here.
    pub fn spans(&self, consumer: &str) -> io::Result<u64> {
        Ok(self.list(Some(consumer))?.iter().map(|item| item.spans).sum())
    }
}

fn read_all(dir: &Path, items: &mut Vec<Item>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            match fs::read(&path) {
                Ok(json) => items.push(item_of(&path, &json)?),
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn item_of(path: &Path, json: &[u8]) -> io::Result<Item> {
    serde_json::from_slice(json)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A consumer's name as a directory's: config allows letters, digits and '-' only; anything else becomes '_'.
fn plain(consumer: &str) -> String {
    consumer.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

/// Writes a file so that it is whole or not there.
fn durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(".tmp");
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)
}

impl Item {
    /// Where in the log it was.
    #[must_use]
    pub fn at(&self) -> Offset {
        Offset(self.offset)
    }

    /// Its name among its consumer's items, which is its file's.
    #[must_use]
    pub fn name(&self) -> String {
        let first = self.span_ids.first().map_or("none", String::as_str);
        format!("{:020}-{}", self.offset, plain(first))
    }

    /// Where its spans are booked: what became of them, taken `times`.
    #[must_use]
    pub fn tally(&self, fate: &Fate, times: i64) -> Tally {
        let mut tally = Tally::default();
        for booked in &self.accounts {
            tally.add(&Account::new(Hour(booked.hour), &booked.project), fate.clone(), booked.spans as i64 * times);
        }
        tally
    }

    /// The tally of its spans that leave quarantine for `fate`, as `book` has them. Empty for an item that is not in it: from before
    /// there was a ledger, or put before a crash that kept it from being booked, and delivered since.
    #[must_use]
    pub fn released(&self, fate: &Fate, book: &Book) -> Tally {
        let mut tally = self.tally(fate, 1);
        tally.merge(&self.tally(&Fate::Quarantined(Reason::new(&self.reason)), -1));
        let tally = tally.settled(book);
        let booked = |account: &Account, fate: &Fate| -> i64 {
            book.lines().filter(|line| line.0 == account && line.1 == fate).map(|(.., spans)| spans).sum()
        };
        let is_booked = tally.lines().all(|(account, fate, spans)| spans >= 0 || booked(account, fate) + spans >= 0);
        if is_booked { tally } else { Tally::default() }
    }
}

/// What a tally books, as an item keeps it.
#[must_use]
pub fn booked(tally: &Tally) -> Vec<Booked> {
    tally
        .lines()
        .map(|(account, _, spans)| Booked {
            hour: account.hour.0,
            project: account.project.to_string(),
            spans: spans.unsigned_abs(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(consumer: &str, offset: u64, span: &str) -> Item {
        Item {
            consumer: consumer.into(),
            offset,
            spans: 1,
            traces: vec!["t".into()],
            span_ids: vec![span.into()],
            reason: "refused".into(),
            answer: "é".repeat(3000),
            at_micros: 7,
            accounts: vec![Booked { hour: 490_000, project: "shop".into(), spans: 1 }],
            retries: 0,
        }
    }

    /// An item put again, as after a crash, is there once; a torn one is put as if it had never been.
    #[test]
    fn an_item_is_there_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(dir.path()).unwrap();
        let (a, b) = (item("phoenix", 5, "aa"), item("../phoenix", 4, "bb"));
        fs::create_dir_all(dir.path().join("phoenix")).unwrap();
        fs::write(dir.path().join("phoenix/00000000000000000005-aa.pb"), b"torn").unwrap();
        assert!(quarantine.put(&a, &Bytes::from_static(b"body")).unwrap());
        assert!(!quarantine.put(&a, &Bytes::from_static(b"other")).unwrap());
        assert!(quarantine.put(&b, &Bytes::from_static(b"b")).unwrap());
        assert!(quarantine.put(&item("phoenix", 5, "cc"), &Bytes::new()).unwrap());

        let again = Quarantine::open(dir.path()).unwrap();
        assert_eq!(again.spans("phoenix").unwrap(), 2);
        assert_eq!(again.list(None).unwrap().len(), 3);
        assert_eq!(again.list(Some("../phoenix")).unwrap().len(), 1);
        assert_eq!(again.body(&a).unwrap(), &b"body"[..]);
        let kept = &again.list(Some("phoenix")).unwrap()[0];
        assert_eq!((kept.answer.len(), kept.at()), (4096, Offset(5)));
        assert!(dir.path().join("___phoenix").exists(), "a name cannot leave the directory");
    }

    /// A decision stands until it is done; the item stays with the new answer, or goes with all its files, also when that is repeated.
    #[test]
    fn decisions_stand_until_they_are_done() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(dir.path()).unwrap();
        let (a, b) = (item("phoenix", 5, "aa"), item("phoenix", 4, "bb"));
        assert_eq!(quarantine.decided("phoenix").unwrap(), []);
        for item in [&a, &b] {
            quarantine.put(item, &Bytes::from_static(b"body")).unwrap();
        }
        quarantine.decide(&a, Decision::Drop).unwrap();
        quarantine.decide(&a, Decision::Retry).unwrap();
        quarantine.decide(&b, Decision::Drop).unwrap();
        let decided = quarantine.decided("phoenix").unwrap();
        assert_eq!(
            decided.iter().map(|(item, d)| (item.offset, *d)).collect::<Vec<_>>(),
            [(4, Decision::Drop), (5, Decision::Retry)]
        );
        quarantine.stays(&decided[1].0, "still refused").unwrap();
        for _ in 0..2 {
            quarantine.remove("phoenix", &b.name()).unwrap();
        }
        assert_eq!(quarantine.decided("phoenix").unwrap(), []);
        let [left] = &quarantine.list(None).unwrap()[..] else { panic!() };
        assert_eq!((left.offset, left.retries, &left.answer[..]), (5, 1, "still refused"));
        assert_eq!(fs::read_dir(dir.path().join("phoenix")).unwrap().count(), 2);
    }
}
