//! `emberd restore DIR`: a data directory from a backup.
//!
//! Promise: every byte of the backup is checked before anything is written; what is there is never overwritten; the data directory has its
//! parts only once all are whole and on the disk, the log last.
//! Not here: PostgreSQL, which is restored with its own tools before emberd starts.
//! Kept by: `tests/it/backup.rs`.

use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::Where;
use super::backup::{DATABASE, FORMAT, MANIFEST, Manifest, bar, copy_file, make_dir, make_empty, sum, sync_dir};
use crate::config::{Config, Database};

/// Where the parts are made whole, within the data directory, for it may be a mount.
const STAGE: &str = ".restoring";

#[derive(Args)]
pub(crate) struct Options {
    /// The backup
    dir: PathBuf,
    #[command(flatten)]
    place: Where,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let config = match options.place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let manifest = checked(&options.dir)?;
    let database = database(&config, &manifest)?;
    make_empty(&config.data_dir)?;
    let stage = config.data_dir.join(STAGE);
    make_dir(&stage)?;
    let progress = bar("restore");
    progress.set_length(manifest.files.len() as u64);
    for file in &manifest.files {
        let to = if file.path == Path::new(DATABASE) { database.clone() } else { Some(stage.join(&file.path)) };
        let Some(to) = to else { continue };
        let parent = to.parent().context("a file without a directory")?;
        make_all(parent)?;
        copy_file(&options.dir.join(&file.path), &to).with_context(|| format!("cannot write {}", to.display()))?;
        let (bytes, sha256) = sum(&to, &indicatif::ProgressBar::hidden())?;
        if (bytes, &sha256) != (file.bytes, &file.sha256) {
            bail!("{} came out otherwise than it was read: see the disk", to.display());
        }
        sync_dir(parent)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    put_in_place(&config.data_dir, &stage)?;
    println!(
        "{}: {} files of {}, spans {} to {}; `emberd serve` goes on from there",
        config.data_dir.display(),
        manifest.files.len(),
        manifest.taken_at,
        manifest.tail,
        manifest.head
    );
    if manifest.database == "postgres" {
        println!(
            "the database is PostgreSQL: restore its dump, which was taken before this backup, before emberd starts"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The backup's manifest, once all that it lists was read and is what it says.
fn checked(dir: &Path) -> anyhow::Result<Manifest> {
    let path = dir.join(MANIFEST);
    let text = std::fs::read(&path)
        .with_context(|| format!("cannot read {}: not a backup, or one that was not finished", path.display()))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
    if manifest.format > FORMAT {
        bail!(
            "the backup is of format {}, taken by emberd {}: restore it with that",
            manifest.format,
            manifest.version
        );
    }
    let progress = bar("checking");
    progress.set_length(manifest.files.iter().map(|file| file.bytes).sum());
    let mut wrong = Vec::new();
    for file in &manifest.files {
        if file.path.components().any(|part| !matches!(part, Component::Normal(_))) {
            bail!("{}: not a path of a backup", file.path.display());
        }
        match sum(&dir.join(&file.path), &progress) {
            Ok((bytes, sha256)) if (bytes, &sha256) == (file.bytes, &file.sha256) => (),
            Ok(_) => wrong.push(format!("{} is not what it was", file.path.display())),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    progress.finish_and_clear();
    if !wrong.is_empty() {
        bail!("the backup is damaged, and nothing was restored:\n{}", wrong.join("\n"));
    }
    Ok(manifest)
}

/// Where the database goes; none: there is none in the backup.
fn database(config: &Config, manifest: &Manifest) -> anyhow::Result<Option<PathBuf>> {
    match (&config.store.database, manifest.database.as_str()) {
        (Database::Sqlite(path), "sqlite") => {
            // In the data directory, it waits with the others.
            if path.parent() == Some(&config.data_dir) {
                let name = path.file_name().context("[store] url names no file")?;
                return Ok(Some(config.data_dir.join(STAGE).join(name)));
            }
            if path.exists() {
                bail!("{} is there: move it away, or name another with [store] url", path.display());
            }
            Ok(Some(path.clone()))
        }
        (Database::Postgres(_), "postgres") => Ok(None),
        (Database::Sqlite(_), _) => {
            bail!("the backup's database is PostgreSQL: set [store] url to where its dump was restored")
        }
        (Database::Postgres(_), _) => bail!("the backup's database is SQLite, and [store] url names a PostgreSQL"),
    }
}

fn make_all(dir: &Path) -> anyhow::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    make_all(dir.parent().context("no parent")?)?;
    make_dir(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// The log last: an emberd that starts before that finds none, and would make a new one, in which nothing is missing silently.
fn put_in_place(data_dir: &Path, stage: &Path) -> anyhow::Result<()> {
    let mut names: Vec<_> =
        std::fs::read_dir(stage)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?;
    names.sort_by_key(|name| name == "log");
    for name in names {
        std::fs::rename(stage.join(&name), data_dir.join(&name))?;
    }
    std::fs::remove_dir(stage)?;
    sync_dir(data_dir)
}
