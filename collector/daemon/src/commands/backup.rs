//! `emberd backup DIR`: the data directory, copied while emberd runs, in an order that leaves no hole.
//!
//! Promise: what is restored from it has everything that was acknowledged before the backup began, and counts nothing twice. The parts are
//! taken in this order: quarantine, cursors with their books, ledger; then the database; then the log, and the quarantine once more.
//! Each part knows of nothing that lies behind in one taken later: a cursor, in a file or in the database, never points beyond the log that
//! was copied after it, and what lies between is read again, as after a crash, by consumers that bear that. The log must still hold what the
//! cursors have not passed: where a segment went meanwhile, it is all taken anew, up to three times.
//! On disk:  `DIR` with the files as they lie in a data directory, `emberd.db` whatever its name was, and `backup.json` with the size and
//!           SHA-256 of each: it comes last, so that a backup without it is none. Each file was read back for that.
//! Not here: PostgreSQL, which is dumped with its own tools *before* this (docs/backup.md); the configuration and what it names.
//! Kept by: `tests/it/backup.rs`.

use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use emberd_evaluators_jobs::live;
use emberd_log::inspect::{self, Header};
use emberd_log::{CursorFile, RealDisk, journal};
use emberd_model::Offset;
use emberd_store::examine;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::books::Place;
use super::{Where, bars};
use crate::config::{Database, ROLLED_BACK};
use crate::told;
use crate::wiring::LOG_NAME;
use crate::world::World;

/// The file that says what the others are.
pub(super) const MANIFEST: &str = "backup.json";
/// What `emberd.db` is called there.
pub(super) const DATABASE: &str = "emberd.db";
/// The form of a backup that is written here, and the newest that is understood.
pub(super) const FORMAT: u32 = 1;

/// Where segments went meanwhile, it is begun anew.
const TRIES: usize = 3;
/// A journal that is written to while it is copied may come out torn.
const COPIES: usize = 10;

#[derive(Args)]
pub(crate) struct Options {
    /// Where the backup goes: a directory that is not there yet, or is empty
    dir: PathBuf,
    /// With the archive, which may be large
    #[arg(long)]
    archive: bool,
    #[command(flatten)]
    place: Where,
}

/// What a backup is.
#[derive(Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// Which emberd took it.
    pub(super) version: String,
    /// When it began, RFC 3339.
    pub(super) taken_at: String,
    /// `sqlite`: `emberd.db` is in it; `postgres`: the database is elsewhere.
    pub(super) database: String,
    /// The log's oldest span, and the one after its last.
    pub(super) tail: u64,
    pub(super) head: u64,
    pub(super) files: Vec<Listed>,
}

/// A file of it.
#[derive(Serialize, Deserialize)]
pub(super) struct Listed {
    /// Relative to the backup.
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// In hex.
    pub(super) sha256: String,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let place = match Place::open(&options.place) {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    make_empty(&options.dir)?;
    let taken_at = told::moment(i64::try_from(World::real().clock.now().0 / 1_000).unwrap_or(i64::MAX));
    let mut tries = 0;
    let (tail, head) = loop {
        tries += 1;
        match take(&place, &options.dir).await? {
            Taken::All { tail, head } => break (tail, head),
            Taken::Gap { tail, cursor } if tries == TRIES => bail!(
                "the log lets go of spans faster than they can be copied: it begins at {tail}, and a consumer stood at {cursor}; raise [log] \
                 keep or budget, and take the backup anew"
            ),
            Taken::Gap { .. } => {
                std::fs::remove_dir_all(&options.dir)?;
                make_empty(&options.dir)?;
            }
        }
    };
    if options.archive {
        copy_tree(&place.config.data_dir.join("archive"), &options.dir.join("archive"))?;
    }
    let database = match place.config.store.database {
        Database::Sqlite(_) => "sqlite",
        Database::Postgres(_) => "postgres",
    };
    let files = list(&options.dir)?;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        taken_at,
        database: database.into(),
        tail: tail.0,
        head: head.0,
        files,
    };
    write(&options.dir.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
    sync_dir(&options.dir)?;
    println!(
        "{}: {} files, {bytes} bytes, spans {tail} to {head}; each file was read back for its check sum",
        options.dir.display(),
        manifest.files.len()
    );
    if database == "postgres" {
        println!("the database is PostgreSQL: its dump must have been taken before this backup (docs/backup.md)");
    }
    Ok(ExitCode::SUCCESS)
}

/// What a try came to.
enum Taken {
    All {
        tail: Offset,
        head: Offset,
    },
    /// A consumer stood before what could be copied.
    Gap {
        tail: Offset,
        cursor: Offset,
    },
}

async fn take(place: &Place, dir: &Path) -> anyhow::Result<Taken> {
    let data = &place.config.data_dir;
    let slowest = slowest(place).await?;
    copy_tree(&data.join("quarantine"), &dir.join("quarantine"))?;
    for part in ["cursors", "ledger"] {
        copy_tree(&data.join(part), &dir.join(part))?;
    }
    if data.join(ROLLED_BACK).exists() {
        copy_file(&data.join(ROLLED_BACK), &dir.join(ROLLED_BACK))?;
    }
    if let Database::Sqlite(path) = &place.config.store.database
        && path.exists()
    {
        copy_database(path, &dir.join(DATABASE)).await?;
    }
    let log = dir.join("log");
    make_dir(&log)?;
    copy_file(&place.log_dir().join(LOG_NAME), &log.join(LOG_NAME)).context("cannot copy the log's name")?;
    let progress = bar("log");
    let copied = emberd_log::copy::copy(&RealDisk, &place.log_dir(), &log, |done, all| {
        progress.set_length(all);
        progress.set_position(done);
    })?;
    progress.finish_and_clear();
    copy_tree(&data.join("quarantine"), &dir.join("quarantine"))?;
    let tail = copied.tail.unwrap_or(copied.head);
    Ok(match slowest {
        Some(cursor) if cursor < tail => Taken::Gap { tail, cursor },
        _ => Taken::All { tail, head: copied.head },
    })
}

/// Where the slowest consumer stands, of those that the log still serves; none: there is no consumer, or no log.
async fn slowest(place: &Place) -> anyhow::Result<Option<Offset>> {
    let (segments, _) = inspect::segments(&RealDisk, &place.log_dir())?;
    let tail = segments.iter().find_map(|segment| match segment.header {
        Header::Written { base, .. } => Some(base),
        _ => None,
    });
    let store = place.store().await?;
    let books = place.books(&store).await;
    store.close().await;
    let mut cursors: Vec<Offset> = books?.iter().map(|kept| kept.book.cursor()).collect();
    if place.config.flags.evaluations.enabled {
        let rules = CursorFile::open_on(place.disk.clone(), &place.config.data_dir.join("cursors"), live::CONSUMER)?;
        cursors.extend(rules.load()?);
    }
    let slowest = cursors.into_iter().min();
    // What is gone already, no backup brings back.
    Ok(slowest.map(|cursor| cursor.max(tail.unwrap_or_default())))
}

async fn copy_database(from: &Path, to: &Path) -> anyhow::Result<()> {
    let progress = bar("database");
    let shown = progress.clone();
    emberd_store::copy::file(from, to, move |done, all| {
        shown.set_length(all);
        shown.set_position(done);
    })
    .await
    .context("cannot copy the database")?;
    progress.finish_and_clear();
    std::fs::File::open(to)?.sync_all()?;
    let seen =
        examine::file(to, std::time::Duration::from_secs(60)).await.context("cannot read the copied database")?;
    match seen.damage.as_deref() {
        Some([fault, ..]) => bail!("the database is damaged, and so is its copy: {fault}"),
        _ => Ok(()),
    }
}

/// Copies the files in a directory and those below; one that is not there is empty. What is there already is replaced, what is only there
/// stays.
fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    make_dir(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type()?;
        let is_half = path.extension().is_some_and(|ext| ext == "tmp");
        if kind.is_dir() {
            copy_tree(&path, &to.join(name))?;
        } else if kind.is_file() && !is_half {
            match copy_whole(&path, &to.join(name)) {
                // Done with since the directory was read.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
                copied => copied.with_context(|| format!("cannot copy {}", path.display()))?,
            }
        }
    }
    sync_dir(to)
}

/// A journal again, until it is whole: a step may be written while it is copied.
fn copy_whole(from: &Path, to: &Path) -> std::io::Result<()> {
    let journal = from.file_name().and_then(|name| name.to_str()?.strip_suffix(".journal"));
    for _ in 1..COPIES {
        copy_file(from, to)?;
        let (Some(name), Some(dir)) = (journal, to.parent()) else { return Ok(()) };
        if journal::read(&RealDisk, dir, name).is_ok() {
            return Ok(());
        }
    }
    // It is damaged there too, and what that means is said where it is opened.
    copy_file(from, to)
}

/// Copies a file, durably.
pub(super) fn copy_file(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut source = std::fs::File::open(from)?;
    let mut target = std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(to)?;
    std::io::copy(&mut source, &mut target)?;
    target.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

pub(super) fn sync_dir(dir: &Path) -> anyhow::Result<()> {
    Ok(std::fs::File::open(dir)?.sync_all()?)
}

pub(super) fn make_dir(dir: &Path) -> std::io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    }
}

/// Makes it, if it is not there; what is there must be empty.
pub(super) fn make_empty(dir: &Path) -> anyhow::Result<()> {
    make_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if std::fs::read_dir(dir)?.next().is_some() {
        bail!("{} is not empty: name another directory", dir.display());
    }
    Ok(())
}

/// Every file below a backup, read from end to end.
fn list(dir: &Path) -> anyhow::Result<Vec<Listed>> {
    let mut paths = Vec::new();
    below(dir, &mut paths)?;
    paths.sort();
    let progress = bar("check sums");
    progress.set_length(paths.iter().filter_map(|path| path.metadata().ok()).map(|of| of.len()).sum());
    let mut files = Vec::new();
    for path in paths {
        let (bytes, sha256) = sum(&path, &progress)?;
        files.push(Listed { path: path.strip_prefix(dir)?.to_owned(), bytes, sha256 });
    }
    progress.finish_and_clear();
    Ok(files)
}

fn below(dir: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below(&entry.path(), paths)?;
        } else {
            paths.push(entry.path());
        }
    }
    Ok(())
}

/// A file's size and SHA-256.
pub(super) fn sum(path: &Path, progress: &ProgressBar) -> anyhow::Result<(u64, String)> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut chunk).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        bytes += read as u64;
        progress.inc(read as u64);
    }
    let hex = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, hex))
}

/// A bar, where someone looks.
pub(super) fn bar(what: &'static str) -> ProgressBar {
    bars::bar("{msg:<12} [{bar:30}] {percent}%, {eta} left", what, false)
}
