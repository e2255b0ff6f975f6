//! A local directory as a place.
//!
//! Promise: a file is written under a hidden name that does not end in `.parquet`, synced, and then given its own name; the
//! directory and those that had to be made for it are synced before the call answers. Modes are 0700 and 0600.
//! On disk:  `.NAME.tmp` beside `NAME` while it is written. A crash may leave it; it is listed, so that the writer removes it.
//! Not here: who may write (`archive.rs`).

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::place::{Listed, Place, PlaceError};

/// How deep files lie at most: `_manifest/LOG/FILE`.
const DEPTH_MAX: usize = 3;
/// How many directories are remembered.
const DURABLE_MAX: usize = 4_096;
/// How often a directory is made anew that somebody removed, for it was empty, before a file came into it.
const MAKES_MAX: usize = 8;

/// Files below a directory.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
    /// Directories that this process knows to be durable in the one above. One that is found may be of a process that died before
    /// it had synced that.
    durable: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Directory {
    /// The place at `root`. It is made with its first file.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), durable: Arc::default() }
    }

    /// Does blocking work on a thread that may block.
    fn run<'a, T: Send + 'static>(
        &self,
        action: &'static str,
        name: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, PlaceError>> {
        let (root, name) = (self.root.clone(), name.to_owned());
        async move {
            if !is_plain(&name) {
                return Err(failed(action, &name, io::Error::from(io::ErrorKind::InvalidInput)));
            }
            match tokio::task::spawn_blocking(move || work(&root)).await {
                Ok(done) => done.map_err(|source| failed(action, &name, source)),
                Err(panic) => Err(failed(action, &name, io::Error::other(panic))),
            }
        }
        .boxed()
    }
}

/// Whether a name stays below the root.
fn is_plain(name: &str) -> bool {
    let name = name.strip_suffix('/').unwrap_or(name);
    name.is_empty() || name.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
}

fn failed(action: &'static str, name: &str, source: io::Error) -> PlaceError {
    let name = name.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => PlaceError::Missing { name },
        io::ErrorKind::AlreadyExists => PlaceError::Exists { name },
        io::ErrorKind::PermissionDenied => PlaceError::Denied {
            action,
            name,
            advice: "the archive's directory must belong to emberd's user",
            source: source.into(),
        },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PlaceError::Failed {
            action,
            name,
            advice: "the disk is full: make room, or let [archive] keep less",
            source: source.into(),
        },
        io::ErrorKind::ReadOnlyFilesystem => PlaceError::Failed {
            action,
            name,
            advice: "the file system is mounted read-only: look into the kernel's log for a fault of the disk",
            source: source.into(),
        },
        _ => PlaceError::Failed {
            action,
            name,
            advice: "look at the disk and at the kernel's log; it will be tried again",
            source: source.into(),
        },
    }
}

impl Place for Directory {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), PlaceError>> {
        let (path, durable) = (name.to_owned(), self.durable.clone());
        self.run("write", name, move |root| write(root, &path, &bytes, &durable, |temp, path| fs::rename(temp, path)))
    }

    fn put_new<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), PlaceError>> {
        let (path, durable) = (name.to_owned(), self.durable.clone());
        self.run("write", name, move |root| write(root, &path, &bytes, &durable, give_new))
    }

    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> BoxFuture<'a, Result<Bytes, PlaceError>> {
        let path = name.to_owned();
        let read = self.run("read", name, move |root| {
            let mut bytes = Vec::new();
            File::open(root.join(path))?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
            Ok(Bytes::from(bytes))
        });
        async move {
            let bytes = read.await?;
            match bytes.len() as u64 <= bytes_max {
                true => Ok(bytes),
                false => Err(PlaceError::Long { name: name.to_owned(), bytes_max }),
            }
        }
        .boxed()
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, PlaceError>> {
        let path = name.to_owned();
        self.run("read", name, move |root| {
            let mut file = File::open(root.join(path))?;
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = Vec::new();
            file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
            Ok(Bytes::from(bytes))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Listed>, PlaceError>> {
        let below = prefix.to_owned();
        self.run("list", prefix, move |root| {
            let mut found = Vec::new();
            let depth = DEPTH_MAX.saturating_sub(below.matches('/').count());
            list(root, &below, depth, &mut found)?;
            found.sort();
            Ok(found)
        })
    }

    fn delete<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<(), PlaceError>> {
        let paths = names.to_owned();
        let first = names.first().map_or("", String::as_str);
        if let Some(odd) = names.iter().find(|name| !is_plain(name)) {
            let odd = failed("remove", odd, io::Error::from(io::ErrorKind::InvalidInput));
            return async { Err(odd) }.boxed();
        }
        self.run("remove", first, move |root| remove(root, &paths))
    }
}

/// Writes a file under a hidden name, and lets `give` give it its own.
fn write(
    root: &Path,
    name: &str,
    bytes: &[u8],
    durable: &Mutex<BTreeSet<PathBuf>>,
    give: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let path = root.join(name);
    let (Some(dir), Some(last)) = (path.parent(), path.file_name().and_then(|last| last.to_str())) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let temp = dir.join(format!(".{last}.tmp"));
    let mut file = None;
    for _ in 0..MAKES_MAX {
        make_dirs(dir)?;
        make_durable(root, dir, durable)?;
        match OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp) {
            Ok(made) => {
                file = Some(made);
                break;
            }
            // Another writer found the directory empty and removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut file = file.ok_or(io::ErrorKind::ResourceBusy)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    drop(file);
    if let Err(error) = written {
        // On a full disk the half of a file would only be in the way.
        let _ = fs::remove_file(&temp);
        return Err(error);
    }
    give(&temp, &path)?;
    sync_dir(dir)
}

/// Gives a file its name if nothing has it: a link is made only where nothing is.
fn give_new(temp: &Path, path: &Path) -> io::Result<()> {
    let linked = fs::hard_link(temp, path);
    match linked {
        // A file system without links: of two writers at the same moment neither would hear of the other.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.try_exists()? => fs::rename(temp, path),
        linked => fs::remove_file(temp).and(linked),
    }
}

/// Makes a directory and those above it, each durable in the one above.
fn make_dirs(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => dir.parent().map_or(Ok(()), sync_dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dirs(dir.parent().ok_or(error)?)?;
            make_dirs(dir)
        }
        Err(error) => Err(error),
    }
}

/// Syncs what is above a directory, up to the root's own place, the first time that this process meets it.
fn make_durable(root: &Path, dir: &Path, durable: &Mutex<BTreeSet<PathBuf>>) -> io::Result<()> {
    let is_known = |dir: &Path| durable.lock().unwrap_or_else(PoisonError::into_inner).contains(dir);
    for dir in dir.ancestors().take_while(|dir| dir.starts_with(root) && !is_known(dir)) {
        dir.parent().map_or(Ok(()), sync_dir)?;
    }
    let mut known = durable.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= DURABLE_MAX {
        known.clear();
    }
    known.insert(dir.to_owned());
    Ok(())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    // A relative path of one part has the empty path above it.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    match File::open(dir) {
        Ok(dir) => dir.sync_all(),
        // Removed by another writer, as an empty one: nothing of ours is in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn list(root: &Path, below: &str, depth: usize, found: &mut Vec<Listed>) -> io::Result<()> {
    let entries = match fs::read_dir(root.join(below)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        // A name that is no text is none of ours, and nothing that a reader of Parquet would open.
        let Ok(last) = entry.file_name().into_string() else { continue };
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if meta.is_file() {
            found.push(Listed { name: format!("{below}{last}"), bytes: meta.len() });
        } else if meta.is_dir() && depth > 1 {
            list(root, &format!("{below}{last}/"), depth - 1, found)?;
        }
    }
    Ok(())
}

fn remove(root: &Path, names: &[String]) -> io::Result<()> {
    let mut dirs = std::collections::BTreeSet::new();
    for name in names {
        let path = root.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            // Perhaps removed by a call that died before it synced: the directory is synced all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(dir) = path.parent() {
            dirs.insert(dir.to_owned());
        }
    }
    for dir in dirs {
        sync_dir(&dir)?;
        // A day without files is no day. Fails where there are any.
        if dir != root {
            let _ = fs::remove_dir(&dir);
        }
    }
    Ok(())
}
