//! What the process that started emberd says in the environment: systemd, or whoever speaks its protocols.
//!
//! - `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`: whom to tell how it goes (sd_notify(3), sd_watchdog_enabled(3)).
//! - `LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID`: sockets that are open already (sd_listen_fds(3)).
//!
//! Not here: telling, and taking the sockets (`systemd.rs`); `CREDENTIALS_DIRECTORY` (`reader.rs`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::checks;
use super::faults::{Errors, Fault, Place};
use super::{Config, Door};

/// More sockets than emberd has doors are a mistake in the socket unit.
const SOCKETS_MAX: u32 = 16;
/// The first descriptor that is handed over.
const FIRST: i32 = 3;

/// What it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Supervisor {
    /// The datagram socket that wants to hear; one that begins with `@` is abstract.
    pub notify: Option<OsString>,
    /// How often it must hear that all is well, or it ends this process.
    pub watchdog: Option<Duration>,
    /// The descriptors that listen, with their names.
    pub sockets: Vec<(i32, String)>,
}

impl Supervisor {
    /// From the environment of this process.
    pub(crate) fn load() -> Result<Self, Errors> {
        Self::of(std::env::vars_os(), std::process::id())
    }

    /// The same with an environment that is handed in, for the process `pid`. What is meant for another process does not count.
    pub(super) fn of(variables: impl IntoIterator<Item = (OsString, OsString)>, pid: u32) -> Result<Self, Errors> {
        const NAMES: [&str; 6] =
            ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];
        let ours = |name: &OsString| NAMES.iter().copied().find(|known| name == known);
        let all: BTreeMap<&str, OsString> =
            variables.into_iter().filter_map(|(name, value)| Some((ours(&name)?, value))).collect();
        let text = |name: &str| all.get(name).and_then(|value| value.to_str());
        let mut faults = Vec::new();
        let mut number = |name: &'static str| -> Option<u64> {
            let said = all.get(name)?.to_str().and_then(|text| text.parse().ok());
            said.or_else(|| {
                faults.push(fault(name, String::new(), "not a number"));
                None
            })
        };
        let (usec, fds) = (number("WATCHDOG_USEC"), number("LISTEN_FDS"));
        let (watched, listens) = (number("WATCHDOG_PID"), number("LISTEN_PID"));
        let is_ours = |said: Option<u64>| said.is_none_or(|said| said == u64::from(pid));
        // Without LISTEN_PID nothing was handed over: the variables were inherited from somebody who cleared it.
        let count = fds.filter(|_| listens == Some(pid.into())).unwrap_or(0);
        let count = u32::try_from(count).ok().filter(|count| *count <= SOCKETS_MAX).unwrap_or_else(|| {
            faults.push(fault("LISTEN_FDS", String::new(), format!("more than {SOCKETS_MAX} sockets")));
            0
        });
        let mut names = text("LISTEN_FDNAMES").unwrap_or_default().split(':');
        let sockets = (FIRST..).take(count as usize).map(|fd| (fd, names.next().unwrap_or_default().to_owned()));
        let said = Self {
            notify: all.get("NOTIFY_SOCKET").filter(|name| !name.is_empty()).cloned(),
            watchdog: usec.filter(|usec| *usec > 0 && is_ours(watched)).map(Duration::from_micros),
            sockets: sockets.collect(),
        };
        if said.notify.as_ref().is_some_and(|name| !matches!(name.as_bytes()[0], b'/' | b'@')) {
            faults.push(fault("NOTIFY_SOCKET", String::new(), "neither a path nor an abstract name"));
        }
        if faults.is_empty() { Ok(said) } else { Err(Errors(faults)) }
    }
}

fn fault(variable: &'static str, key: String, message: impl Into<String>) -> Fault {
    Fault { place: Place::Variable(variable.into()), key, message: message.into() }
}

impl Config {
    /// Says which door a socket is that was handed over, and lets the door listen where it does: by its name, `grpc`, `http` or `api`,
    /// else by the port that it has.
    pub(crate) fn hand(&mut self, name: &str, address: SocketAddr) -> Result<Door, Errors> {
        let door = match name {
            "grpc" => Some(Door::Grpc),
            "http" => Some(Door::Http),
            "api" => Some(Door::Api),
            _ => Door::ALL.into_iter().find(|door| self.listens(*door).port() == address.port()),
        };
        let key = format!("{name:?}");
        let Some(door) = door else {
            let message = format!("{address} is of no door: name it grpc, http or api, or give it the port of one");
            return Err(Errors(vec![fault("LISTEN_FDNAMES", key, message)]));
        };
        *self.listens_mut(door) = address;
        match checks::is_guarded(self, door) {
            Ok(()) => Ok(door),
            Err(message) => Err(Errors(vec![fault("LISTEN_FDNAMES", key, message)])),
        }
    }

    pub(super) fn listens(&self, door: Door) -> SocketAddr {
        match door {
            Door::Grpc => self.intake.grpc,
            Door::Http => self.intake.http,
            Door::Api => self.api.listen,
        }
    }

    fn listens_mut(&mut self, door: Door) -> &mut SocketAddr {
        match door {
            Door::Grpc => &mut self.intake.grpc,
            Door::Http => &mut self.intake.http,
            Door::Api => &mut self.api.listen,
        }
    }
}

#[cfg(test)]
mod tests;
