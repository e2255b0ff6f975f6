//! What emberd says while it runs: one line an event on standard error, `EMBERD_LOG`'s levels (default `info`).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging for the process.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("EMBERD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests) keeps the first.
    let _ = lines.with_ansi(terminal).try_init();
}

/// The same into `emberd.log` in the data directory, for a command that has the terminal to itself.
pub(crate) fn start_quiet(data_dir: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(data_dir)?;
    let file = std::fs::File::options().create(true).append(true).open(data_dir.join("emberd.log"))?;
    let filter = EnvFilter::try_from_env("EMBERD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::sync::Mutex::new(file));
    let _ = lines.with_ansi(false).with_target(false).try_init();
    Ok(())
}
