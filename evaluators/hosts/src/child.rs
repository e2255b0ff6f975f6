//! A plugin as a process of emberd's: started, watched, restarted, ended.
//!
//! Promise: it runs in a session of its own, with limits, without emberd's environment, descriptors and rights to gain more; what it
//! writes is read for ever and kept in short lines; it is ended with all of its group, asked first and killed then, and does not outlive
//! emberd, not even one that was killed itself.
//! On disk: `RUNTIME_DIR/NAME/`, mode 0700, made afresh at each start: the plugin's home, and the socket `s` where it listens.
//! Not here: what it is asked (`metric`).
//!
//! - [`process`]: start and end. [`limits`]: what it may take. [`lines`]: what it writes. [`tree`]: what it and its offspring hold.

pub(crate) mod limits;
pub(crate) mod lines;
mod process;
mod tree;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::config::Command;
use crate::plugin::{Line, Live, Plugin, State};
use crate::remote;
use process::Process;

/// The longest path that a Unix socket can have, with its end.
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;
/// A process that lived so long was not a failed start.
const SETTLED: Duration = Duration::from_secs(60);

/// How long to wait after so many failures in a row: 100 ms, doubled to half a minute.
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.saturating_sub(1).min(9)).min(Duration::from_secs(30))
}

/// Where a plugin listens.
pub(crate) fn socket(home: &Path) -> PathBuf {
    home.join("s")
}

/// Keeps a process running until `stop`.
pub(crate) async fn supervise(plugin: &Arc<Plugin>, command: &Command, home: &Path, stop: &CancellationToken) {
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let started = Instant::now();
        let (why, answered) = live(plugin, command, home, stop).await;
        if stop.is_cancelled() {
            return;
        }
        failures = if answered || started.elapsed() > SETTLED { 1 } else { failures.saturating_add(1) };
        plugin.is_down(&why, failures);
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(backoff(failures)) => {}
        }
    }
}

/// One life of the process: why it ended, and whether it was of use.
async fn live(plugin: &Arc<Plugin>, command: &Command, home: &Path, stop: &CancellationToken) -> (String, bool) {
    // Kept while it restarts quickly: who waits for it sees the last reason.
    if !matches!(plugin.state(), State::Down { .. }) {
        plugin.is_now(State::Starting);
    }
    let begun = match begin(plugin, command, home).await {
        Ok(begun) => begun,
        Err(why) => return (why, false),
    };
    let (mut process, mut pipes) = begun;
    let grace = plugin.config.bounds.grace;
    let channel = dial(socket(home));
    let pid = process.pid();
    let described = tokio::select! {
        described = describe(plugin, home, &channel) => described,
        exit = process.exited() => Err(format!("it ended before it was ready: {exit}")),
        excess = tree::watch(pid, &command.limits) => Err(excess),
        () = stop.cancelled() => Err("emberd is stopping".into()),
    };
    let catalog = match described {
        Ok(catalog) => catalog,
        Err(why) => {
            process.end(grace).await;
            return (why, false);
        }
    };
    let live = Arc::new(Live::new(Line::Grpc(channel.clone()), catalog, Some(pid)));
    plugin.is_now(State::Ready(Arc::clone(&live)));
    let why = tokio::select! {
        exit = process.exited() => format!("it ended: {exit}"),
        excess = tree::watch(pid, &command.limits) => excess,
        () = live.condemned.notified() => "it failed too often, and is started afresh".into(),
        () = silence(plugin, &live, &channel) => "it gives no sign of life, and is started afresh".into(),
        () = stop.cancelled() => "emberd is stopping".into(),
    };
    // Nobody asks a process that is being ended.
    plugin.is_now(if stop.is_cancelled() { State::Stopped } else { State::Starting });
    process.end(grace).await;
    drain(&mut pipes).await;
    (why, live.has_answered())
}

/// Starts the process in a fresh home.
async fn begin(plugin: &Plugin, command: &Command, home: &Path) -> Result<(Process, JoinSet<()>), String> {
    let fresh = || -> std::io::Result<()> {
        if home.exists() {
            std::fs::remove_dir_all(home)?;
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home)
    };
    fresh().map_err(|error| format!("cannot make {}: {error}", home.display()))?;
    let (process, stdout, stderr) = Process::start(&plugin.name, command, home).await?;
    let mut pipes = JoinSet::new();
    pipes.spawn(lines::read(plugin.name.clone(), "stdout", stdout));
    pipes.spawn(lines::read(plugin.name.clone(), "stderr", stderr));
    Ok((process, pipes))
}

/// What is still in the pipes of a process that is gone; not what its stray offspring goes on writing.
async fn drain(pipes: &mut JoinSet<()>) {
    let _ = timeout(Duration::from_millis(200), async { while pipes.join_next().await.is_some() {} }).await;
}

fn dial(socket: PathBuf) -> Channel {
    let connect = service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    Endpoint::from_static("http://plugin").connect_with_connector_lazy(connect)
}

/// Waits for the socket, then for the description.
async fn describe(plugin: &Plugin, home: &Path, channel: &Channel) -> Result<crate::catalog::Catalog, String> {
    let by = Instant::now() + plugin.config.bounds.start;
    let socket = socket(home);
    while UnixStream::connect(&socket).await.is_err() {
        if Instant::now() >= by {
            return Err("it does not listen on its socket in time".into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    remote::describe(plugin, channel, by.saturating_duration_since(Instant::now())).await
}

/// Returns when the plugin was suspected, asked, and did not answer.
async fn silence(plugin: &Plugin, live: &Live, channel: &Channel) {
    loop {
        live.suspected.notified().await;
        if !remote::lives(plugin, channel).await {
            return;
        }
        plugin.lives(live);
    }
}
