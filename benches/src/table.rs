//! Measuring and printing: best of several passes for what is deterministic, tables in Markdown.

use std::time::{Duration, Instant};

/// The shortest of `passes` runs of `work`: the one that other tenants of the machine disturbed least.
pub(crate) fn best(passes: u32, mut work: impl FnMut()) -> Duration {
    let timed = |()| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    std::iter::repeat_n((), passes as usize).map(timed).min().unwrap_or_default()
}

/// Prints a table: a title, the head, the rows.
pub(crate) fn print(title: &str, head: &[&str], rows: &[Vec<String>]) {
    println!("## {title}\n");
    println!("| {} |", head.join(" | "));
    println!("|{}|", vec!["---"; head.len()].join("|"));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
    println!();
}

/// What the figures were measured on.
pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Machine: {model}, {cores} cores, {} GiB, Linux {}", kib >> 20, kernel.trim())
}

/// Nanoseconds an item, with one decimal.
pub(crate) fn nanos_each(took: Duration, items: usize) -> f64 {
    took.as_nanos() as f64 / items as f64
}

/// The middle of some figures.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
