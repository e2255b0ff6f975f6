//! What systemd is told, and what it hands over: the protocols of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3).
//!
//! Promise: `READY=1` once everything listens and runs; `STOPPING=1` when the stop begins; each half of the watchdog's time one message
//! with the truth in a line, and with `WATCHDOG=1` only while emberd gets on: the runtime turns (it is the one that sends), and the log's
//! writer is not longer at one write or sync than that. A room that panics ends emberd (`wiring`). A slow Phoenix or a database that is
//! away withholds nothing: starting again does not bring them back.
//! Not here: what the environment says (`config/supervisor.rs`). Addresses of virtual machines (`vsock:`) are none of emberd's.
//! Kept by: `tests`, `tests/it/systemd.rs`, `packaging/try`.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use emberd_consumers::Progress;
use emberd_log::{DiskLog, Log};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{Config, Door, Supervisor};
use crate::world::monotonic_usec;

/// How often the truth is told where no watchdog asks.
const TOLD_EVERY: Duration = Duration::from_secs(15);
/// systemd that does not take a message within this time misses it.
const TELL_TIME_MAX: Duration = Duration::from_millis(500);

/// Whoever started emberd and wants to hear how it goes; by default nobody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Systemd {
    to: Option<Arc<(UnixDatagram, SocketAddr)>>,
    watchdog: Option<Duration>,
}

/// What is watched.
pub(crate) struct Watched {
    pub(crate) log: Arc<DiskLog>,
    pub(crate) consumers: Vec<Arc<Progress>>,
}

/// Reads what systemd said, and takes the sockets that it handed over; the doors of `config` listen on them then. The error is of the
/// kind that an operator must mend.
pub(crate) fn meet(config: &mut Config) -> Result<(Systemd, Handed), String> {
    let supervisor = Supervisor::load().map_err(|faults| faults.to_string())?;
    let handed = Handed::take(config, &supervisor.sockets)?;
    let systemd = Systemd::new(&supervisor).map_err(|error| format!("NOTIFY_SOCKET: {error}"))?;
    Ok((systemd, handed))
}

impl Systemd {
    fn new(supervisor: &Supervisor) -> io::Result<Self> {
        let to = supervisor.notify.as_deref().map(|name| -> io::Result<_> {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(TELL_TIME_MAX))?;
            Ok(Arc::new((socket, address(name)?)))
        });
        Ok(Self { to: to.transpose()?, watchdog: supervisor.watchdog })
    }

    /// Everything listens and runs; also once a reload is done.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The configuration is being read again; [`Systemd::ready`] ends it.
    pub(crate) fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_usec()));
    }

    /// The stop has begun.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping in the order that data flows");
    }

    /// Tells how it goes, and that it goes, for ever.
    pub(crate) async fn watch(&self, watched: Watched) {
        if self.to.is_none() {
            return std::future::pending().await;
        }
        let every = self.watchdog.map_or(TOLD_EVERY, |watchdog| watchdog / 2).max(Duration::from_millis(1));
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_stuck = false;
        loop {
            ticks.tick().await;
            let stuck_for = watched.log.at_work_for();
            let is_stuck = stuck_for >= every;
            if is_stuck {
                if !was_stuck {
                    tracing::error!(
                        ?stuck_for,
                        "the log's disk does not return from a write: systemd is not told that all is well"
                    );
                }
                self.tell(&format!(
                    "STATUS=stuck: the log's disk has not returned from a write for {} s",
                    stuck_for.as_secs()
                ));
            } else {
                self.tell(&format!("WATCHDOG=1\nSTATUS={}", watched.status()));
            }
            was_stuck = is_stuck;
        }
    }

    /// What cannot be told is missed: systemd decides what that means.
    fn tell(&self, message: &str) {
        if let Some((socket, to)) = self.to.as_deref()
            && let Err(error) = socket.send_to_addr(message.as_bytes(), to)
        {
            tracing::debug!(%error, message, "systemd did not hear");
        }
    }
}

impl Watched {
    /// The truth in a line.
    fn status(&self) -> String {
        let head = self.log.head();
        let mut line = format!("{} spans accepted", head.0);
        for progress in &self.consumers {
            let _ = write!(line, ", {} {} behind", progress.name(), head.since(progress.cursor().min(head)));
        }
        if self.log.is_refusing() {
            line.push_str(", refusing for want of room");
        }
        line
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    }
}

/// Sockets that were open before emberd, and stay so after it: while it starts again, callers wait in them instead of being refused.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    pub(crate) doors: emberd_intake::Handed,
    pub(crate) api: Option<TcpListener>,
}

impl Handed {
    /// Takes descriptors that this process was started with: once, for they are its own from then on.
    fn take(config: &mut Config, sockets: &[(RawFd, String)]) -> Result<Self, String> {
        let mut handed = Self::default();
        for (fd, name) in sockets {
            let wrong = |error: io::Error| format!("LISTEN_FDS: descriptor {fd} ({name:?}): {error}");
            let listener = listener(*fd).map_err(wrong)?;
            let address = listener.local_addr().map_err(wrong)?;
            let configured = [config.intake.grpc, config.intake.http, config.api.listen];
            let door = config.hand(name, address).map_err(|faults| faults.to_string())?;
            let (place, configured) = match door {
                Door::Grpc => (&mut handed.doors.grpc, configured[0]),
                Door::Http => (&mut handed.doors.http, configured[1]),
                Door::Api => (&mut handed.api, configured[2]),
            };
            if place.replace(listener).is_some() {
                return Err(format!("LISTEN_FDNAMES: {address} ({name:?}): that door has a socket already"));
            }
            if configured != address {
                let (section, key) = door.key();
                tracing::warn!(%address, "the socket that was handed over counts, not [{section}] {key} = \"{configured}\"");
            }
        }
        Ok(handed)
    }
}

fn listener(fd: RawFd) -> io::Result<TcpListener> {
    let kind = std::fs::read_link(format!("/proc/self/fd/{fd}"))?;
    if !kind.as_os_str().as_bytes().starts_with(b"socket:") {
        return Err(io::Error::other("not a socket"));
    }
    // SAFETY: it is open (the link is there), and nobody else's: whoever started this process left it open for it under this number,
    // as LISTEN_PID says, and this is called once.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // Plugins are other processes.
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    if !rustix::net::sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other("a socket that does not listen"));
    }
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests;
