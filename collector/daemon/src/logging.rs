//! What emberd says while it runs: one line an event on standard error, `EMBERD_LOG`'s levels (default `info`).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// `EMBERD_LOG` is not a list of levels.
#[derive(Debug, thiserror::Error)]
#[error("EMBERD_LOG: {word:?} is no level: use error, warn, info or debug, or ROOM=LEVEL such as emberd_store=debug")]
pub(crate) struct NoLevel {
    word: String,
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The libraries below say at `warn` what is normal for a server: a peer that left, a connection that is renewed.
const QUIET: &str = "h2=error,sqlx=error,hyper=error";

fn filter() -> Result<EnvFilter, NoLevel> {
    let asked = std::env::var("EMBERD_LOG").unwrap_or_default();
    let asked = if asked.trim().is_empty() { "info" } else { asked.trim() };
    for word in asked.split(',') {
        let level = word.rsplit_once('=').map_or(word, |(_, level)| level).trim();
        if !LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known)) {
            return Err(NoLevel { word: word.into() });
        }
    }
    EnvFilter::try_new(format!("{QUIET},{asked}")).map_err(|_| NoLevel { word: asked.into() })
}

/// Whether `EMBERD_LOG` can be used.
pub(crate) fn check() -> Result<(), NoLevel> {
    filter().map(drop)
}

/// Starts logging for the process.
pub(crate) fn start() -> Result<(), NoLevel> {
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter()?).with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests) keeps the first.
    let _ = lines.with_ansi(terminal).try_init();
    Ok(())
}

/// The same into `emberd.log` in the data directory, for a command that has the terminal to itself.
pub(crate) fn start_quiet(data_dir: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(data_dir)?;
    let file = std::fs::File::options().create(true).append(true).open(data_dir.join("emberd.log"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter()?).with_writer(std::sync::Mutex::new(file));
    let _ = lines.with_ansi(false).with_target(false).try_init();
    Ok(())
}
