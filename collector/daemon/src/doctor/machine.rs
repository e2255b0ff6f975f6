//! What the machine allows: open files, memory.

use rustix::process::{Resource, getrlimit};

use super::{Finding, Patient, bytes};

/// Connections of senders and callers, segments, the database's connections, plugins.
const FILES_MIN: u64 = 4_096;
/// Tail of the log, requests in flight and the database's pages, beside emberd itself.
const MEMORY_MIN: u64 = 512 << 20;

pub(super) async fn limits(patient: Patient) -> Vec<Finding> {
    vec![files(&patient), memory(&patient)]
}

fn files(patient: &Patient) -> Finding {
    let limit = getrlimit(Resource::Nofile).current;
    let needed = FILES_MIN + u64::from(patient.config.store.max_connections);
    match limit {
        Some(limit) if limit < needed => {
            let advice = format!("raise it to {needed} or more: LimitNOFILE= in the unit, `ulimit -n` in a shell");
            Finding::warning("open files", format!("{limit} at most"), advice)
        }
        Some(limit) => Finding::ok("open files", format!("{limit} at most")),
        None => Finding::ok("open files", "no limit"),
    }
}

fn memory(patient: &Patient) -> Finding {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemAvailable:")?.trim().trim_end_matches("kB").trim();
        kib.parse::<u64>().ok().map(|kib| kib << 10)
    });
    let Some(available) = available else { return Finding::ok("memory", "not known") };
    let (room, where_from) = match allowed() {
        Some(allowed) if allowed < available => (allowed, "allowed by its control group"),
        _ => (available, "available"),
    };
    let needed = MEMORY_MIN + patient.config.intake.in_flight.0;
    let found = format!("{} {where_from}", bytes(room));
    if room >= needed {
        return Finding::ok("memory", found);
    }
    let advice = format!("give it {}, or lower [intake] in_flight and max_request", bytes(needed));
    Finding::warning("memory", found, advice)
}

/// The limit of this process's control group, where it has one of its own.
fn allowed() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let limit = std::fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.max")).ok()?;
    limit.trim().parse().ok()
}
