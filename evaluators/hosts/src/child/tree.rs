//! A process and its offspring, as `/proc` shows them: how many they are and what memory they hold.
//!
//! Promise: a fork bomb or a memory hog is seen within a quarter of a second, also where the kernel's own limits do not hold (the
//! superuser has no `RLIMIT_NPROC`, and `RLIMIT_AS` counts each process for itself). At most a thousand processes are looked at.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use tokio::time::{MissedTickBehavior, interval};

use super::limits::ProcessLimits;

const EVERY: Duration = Duration::from_millis(250);
const LOOKED_AT_MAX: usize = 1000;

/// Returns when the processes below `pid`, and itself, take more than they may: what.
pub(super) async fn watch(pid: u32, limits: &ProcessLimits) -> String {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let offspring = offspring(pid);
        let processes = offspring.len() + 1;
        if processes > limits.processes {
            return format!("it runs {processes} processes, at most {}", limits.processes);
        }
        let below = offspring.iter().map(|pid| resident_bytes(pid.as_raw_nonzero().get().unsigned_abs())).sum::<u64>();
        let resident = resident_bytes(pid) + below;
        if resident > limits.resident_bytes {
            return format!("it holds {resident} bytes of memory, at most {}", limits.resident_bytes);
        }
    }
}

/// All processes below this one.
pub(super) fn offspring(pid: u32) -> Vec<Pid> {
    let mut found: Vec<u32> = Vec::new();
    let mut next = vec![pid];
    while let Some(parent) = next.pop() {
        if found.len() >= LOOKED_AT_MAX {
            break;
        }
        let children = children(parent);
        found.extend(&children);
        next.extend(children);
    }
    found.into_iter().filter_map(|pid| i32::try_from(pid).ok().and_then(Pid::from_raw)).collect()
}

/// The children that each of its threads has.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let ids = |list: String| list.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>();
    lists.flat_map(ids).collect()
}

/// What it holds of memory that it does not share with files.
fn resident_bytes(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let page = |at: usize| statm.split(' ').nth(at).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    page(1).saturating_sub(page(2)) * rustix::param::page_size() as u64
}
