//! Where what cannot be delivered or recorded is kept, with the reason, until someone decides.
//!
//! Promise: an item is durable when [`Quarantine::put`] returns, and there once however often it is put: a consumer that crashed between
//! putting it and moving its cursor puts it again without doubling it.
//! On disk:  `DIR/CONSUMER/OFFSET-FIRSTSPAN.pb`, an encoded `ExportTraceServiceRequest` with the spans as they came, and beside it
//!           `.json` with everything else ([`Item`]). An item is there when its `.json` is; a lone `.pb` or `.tmp` is a crash's and is overwritten.
//! Not here: when something goes into quarantine (its consumer decides); sending it again.
//! Kept by:  `tests`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use emberd_model::Offset;
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
}

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
        let path = dir.join(name(item));
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
        let path = self.dir.join(plain(&item.consumer)).join(name(item));
        fs::read(path.with_extension("pb")).map(Bytes::from)
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
            items.push(
                serde_json::from_slice(&fs::read(&path)?).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
                })?,
            );
        }
    }
    Ok(())
}

/// A consumer's name as a directory's: config allows letters, digits and '-' only; anything else becomes '_'.
fn plain(consumer: &str) -> String {
    consumer.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

fn name(item: &Item) -> String {
    let first = item.span_ids.first().map_or("none", String::as_str);
    format!("{:020}-{}", item.offset, plain(first))
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

/// An item's offset as the log's.
impl Item {
    /// Where in the log it was.
    #[must_use]
    pub fn at(&self) -> Offset {
        Offset(self.offset)
    }
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
}
