//! CPU, bytes and time: this process's from `/proc/self`, a server's from its processes, where it runs on this machine.

use std::time::{Duration, Instant};

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// Traces, or items.
    pub(crate) items: u64,
    pub(crate) wall: Duration,
    /// Of this process.
    pub(crate) cpu: Duration,
    /// Of the server's processes.
    pub(crate) server: Option<Duration>,
    /// Bytes given to write calls by this process.
    pub(crate) written: u64,
}

/// A run under way.
pub(crate) struct Meter {
    begun: Instant,
    cpu: Duration,
    server: Option<(u32, Duration)>,
    written: u64,
}

impl Meter {
    /// `postmaster`: the server's first process.
    pub(crate) fn begin(postmaster: Option<u32>) -> Self {
        let server = postmaster.map(|pid| (pid, of_server(pid)));
        Self { begun: Instant::now(), cpu: own(), server, written: written() }
    }

    pub(crate) fn end(self, items: u64) -> Spent {
        Spent {
            items,
            wall: self.begun.elapsed(),
            cpu: own().saturating_sub(self.cpu),
            server: self.server.map(|(pid, before)| of_server(pid).saturating_sub(before)),
            written: written().saturating_sub(self.written),
        }
    }
}

/// All threads: to the nanosecond as the scheduler counts those that live, or in ticks of 10 ms with those that ended, whichever is more.
fn own() -> Duration {
    living().max(ticks("self"))
}

fn living() -> Duration {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let nanos = tasks.flatten().filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn ticks(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    Duration::from_millis(
        rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10,
    )
}

fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or(0)
}

/// The server's processes, those that ended included, in ticks of 10 ms.
fn of_server(postmaster: u32) -> Duration {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Duration::ZERO };
    let mut ticks = 0;
    for process in processes.flatten() {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { continue };
        let Some((head, rest)) = stat.rsplit_once(") ") else { continue };
        let number = |at: usize| rest.split(' ').nth(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        if head.split(' ').next().is_some_and(|pid| pid.parse() == Ok(postmaster)) {
            // Its own time and that of the children it has waited for.
            ticks += number(11) + number(12) + number(13) + number(14);
        } else if number(1) == u64::from(postmaster) {
            ticks += number(11) + number(12);
        }
    }
    Duration::from_millis(ticks * 10)
}
