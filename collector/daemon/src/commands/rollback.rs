//! `emberd rollback`: back to before emberd, in one command, without losing an acknowledged span.
//!
//! Promise: in this order, each step once the one before is done: the flags are off, for good and in the emberd that runs, and nothing works
//! on the tables any more; the tables are taken back, and what was there before emberd stays; what caches hold is gone; a webhook is
//! told. The log, the cursors of what is forwarded and the quarantine stay as they are: spans are taken in and forwarded as ever. Whatever step
//! fails, the command can be given again, as often as one likes.
//! How the daemon hears of it: the file `rolled-back` in the data directory counts as all flags off and no recorder, at every start; SIGHUP
//! has a daemon that runs read it; `run.json` says when what worked on the tables has ended.
//! Back: `emberd migrate up` removes the file; after a restart the recorder begins where the log begins, and records all that it still holds.
//! Not here: other emberds on the same PostgreSQL, which have data directories of their own: roll each of them back, or stop it.
//! Kept by: `tests/it/rollback.rs`.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use emberd_api::neighbours::FORGET;
use emberd_cache::Pattern;
use emberd_log::RealDisk;
use emberd_log::inspect::{self, Header};
use emberd_store::Store;
use serde_json::json;

use super::Where;
use crate::config::{Config, Database, ROLLED_BACK, Secret};
use crate::run_file::RunFile;
use crate::told;
use crate::world::World;

/// How long a daemon may take to finish what it has in hand.
const LETS_GO: Duration = Duration::from_secs(60);
/// How long Redis may take.
const REDIS: Duration = Duration::from_secs(10);
/// How long the webhook may take to answer.
const WEBHOOK: Duration = Duration::from_secs(15);

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let config = match options.place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    if !config.data_dir.is_dir() {
        bail!("no emberd ever ran in {}: name another with --data-dir", config.data_dir.display());
    }
    let store = store(&config).await?;
    let steps = match &store {
        Some(store) => store.migrate_status().await.context("the database cannot be asked: nothing was done")?,
        None => Vec::new(),
    };
    let applied = steps.iter().filter(|step| step.applied).count();
    print!("{}", plan(&config, applied));
    if options.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !options.yes && !confirmed()? {
        eprintln!("nothing was done; --yes does it without asking");
        return Ok(ExitCode::from(super::EX_USAGE));
    }
    do_it(&config, store).await
}

/// The database; none: an SQLite file that is not there, and is not made for this.
async fn store(config: &Config) -> anyhow::Result<Option<Store>> {
    match &config.store.database {
        Database::Sqlite(path) if !path.exists() => Ok(None),
        _ => Ok(Some(Store::connect(config.store.room(&config.data_dir)).await?)),
    }
}

fn plan(config: &Config, applied: usize) -> String {
    let daemon = match RunFile::read(&config.data_dir).filter(RunFile::is_alive) {
        Some(run) => format!("at once in the emberd that runs (pid {})", run.pid),
        None => "from its next start; no emberd runs here".to_owned(),
    };
    let database = match &config.store.database {
        Database::Sqlite(path) => format!("SQLite, {}", path.display()),
        Database::Postgres(_) => "PostgreSQL".to_owned(),
    };
    let redis =
        if config.cache.redis.is_some() { "in Redis, and in every emberd" } else { "in every emberd; no Redis is set" };
    let webhook = match &config.rollback.webhook {
        Some(url) => format!("tell the webhook at {}", host(url)),
        None => "tell nobody: [rollback] webhook is not set".to_owned(),
    };
    format!(
        "rolling back the emberd in {}\n\
         1  turn every flag off and let recording and evaluations rest, {daemon}\n\
         2  take the tables back, {applied} steps ({database}): rows of traces, evaluations, datasets and experiments go with them; tables \
         that were there before emberd stay, with their rows\n\
         3  clear the caches, {redis}\n\
         4  {webhook}\n\
         It keeps: the log ({}), what is forwarded and how far, the quarantine. Spans are taken in and forwarded as ever.\n\
         Back again: `emberd migrate up` and a restart; what the log still holds then is recorded.\n",
        config.data_dir.display(),
        spans(&config.data_dir),
    )
}

/// What the log holds, by its headers.
fn spans(data_dir: &Path) -> String {
    let segments =
        inspect::segments(&RealDisk, &data_dir.join("log")).map(|(segments, _)| segments).unwrap_or_default();
    let tail = segments.iter().find_map(|segment| match segment.header {
        Header::Written { base, .. } => Some(base),
        _ => None,
    });
    tail.map_or("empty".to_owned(), |tail| format!("from span {tail} on"))
}

fn host(url: &Secret) -> String {
    reqwest::Url::parse(url.reveal()).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("Type \"rollback\" to go on: ");
    std::io::stdout().flush()?;
    let mut said = String::new();
    std::io::stdin().read_line(&mut said)?;
    Ok(said.trim() == "rollback")
}

async fn do_it(config: &Config, store: Option<Store>) -> anyhow::Result<ExitCode> {
    let data_dir = &config.data_dir;
    turn_off(data_dir).context("cannot turn the flags off: nothing was done")?;
    println!("1  every flag is off");
    match let_go(data_dir).await {
        Ok(Some(pid)) => println!("   the emberd that runs (pid {pid}) works on no table any more"),
        Ok(None) => (),
        Err(error) => return Err(error.context("the flags are off; the tables were not touched")),
    }
    let mut is_told = true;
    if let Some(store) = store {
        let taken = store.migrate_down(0).await;
        // Emberds that have no Redis in common hear of it from PostgreSQL.
        let patterns: Vec<String> = all_caches().map(|pattern| pattern.to_string()).collect();
        is_told = store.others().voice().tell(FORGET, &patterns).await.is_ok();
        store.close().await;
        let taken = taken.context("the flags are off; the tables were not taken back: give the command again")?;
        println!("2  {} steps were taken back", taken.len());
    } else {
        println!("2  there is no database");
    }
    let cleared = clear_caches(config, is_told).await;
    let told = notify(config).await;
    for failed in [cleared, told].into_iter().filter_map(Result::err) {
        eprintln!("emberd: {failed:#}: give the command again");
        is_told = false;
    }
    Ok(if is_told { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says so in the data directory, durably.
fn turn_off(data_dir: &Path) -> anyhow::Result<()> {
    let path = data_dir.join(ROLLED_BACK);
    if !path.exists() {
        emberd_log::replace_file(&path, format!("{}\n", json!({ "at": now() })).as_bytes())?;
    }
    Ok(())
}

fn now() -> String {
    told::moment(i64::try_from(World::real().clock.now().0 / 1_000).unwrap_or(i64::MAX))
}

/// Has the daemon that runs here read it, and waits until it rests; its pid.
async fn let_go(data_dir: &Path) -> anyhow::Result<Option<u32>> {
    let since = Instant::now();
    let Some(run) = RunFile::read(data_dir).filter(RunFile::is_alive) else { return Ok(None) };
    let pid = i32::try_from(run.pid).ok().and_then(rustix::process::Pid::from_raw).context("no pid in run.json")?;
    rustix::process::kill_process(pid, rustix::process::Signal::HUP)
        .with_context(|| format!("cannot signal the emberd that runs (pid {}): stop it, or be its user", run.pid))?;
    while since.elapsed() < LETS_GO {
        match RunFile::read(data_dir).filter(RunFile::is_alive) {
            None => return Ok(None),
            Some(now) if now.rolled_back => return Ok(Some(now.pid)),
            Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    bail!(
        "the emberd that runs (pid {}) still works on the tables after {LETS_GO:?}: see its log, or stop it, and give the command again",
        run.pid
    )
}

fn all_caches() -> impl Iterator<Item = Pattern> {
    emberd_api::CACHES.into_iter().map(|name| Pattern::beginning(name, ""))
}

async fn clear_caches(config: &Config, is_told: bool) -> anyhow::Result<()> {
    let caches = config.cache.room(config.identity.as_ref(), World::real().clock)?.caches;
    let Some(swept) = caches.sweep(REDIS).await else {
        let word = if is_told { "" } else { "; not every emberd could be told: it forgets within minutes" };
        println!("3  no Redis is set{word}");
        return Ok(());
    };
    let swept = swept.context("the caches in Redis were not cleared")?;
    for pattern in all_caches() {
        if !caches.tell(pattern, REDIS).await {
            bail!("not every emberd heard from Redis that its caches count no more");
        }
    }
    println!("3  {swept} values are gone from Redis, and every emberd on it was told");
    Ok(())
}

async fn notify(config: &Config) -> anyhow::Result<()> {
    let Some(url) = &config.rollback.webhook else {
        println!("4  no webhook is set");
        return Ok(());
    };
    let http = reqwest::Client::builder().timeout(WEBHOOK).build()?;
    let body = json!({ "event": "phoenix_rollback", "timestamp": now() });
    let sent = http.post(url.reveal()).json(&body).send().await.and_then(reqwest::Response::error_for_status);
    // Its address is not shown: it may hold a token.
    let failed = |error: reqwest::Error| anyhow::Error::new(error.without_url());
    sent.map_err(failed).with_context(|| format!("the webhook at {} was not told", host(url)))?;
    println!("4  the webhook at {} was told", host(url));
    Ok(())
}
