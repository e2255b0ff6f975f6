//! The memory that this process has, and had.

fn status_mib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Forgets the peak; gives what is resident now. Where the peak cannot be forgotten, a rise is counted from the last one.
pub(crate) fn reset_peak() -> u64 {
    match std::fs::write("/proc/self/clear_refs", "5") {
        Ok(()) => status_mib("VmRSS:"),
        Err(_) => status_mib("VmHWM:"),
    }
}

/// The most that was resident since.
pub(crate) fn peak_mib() -> u64 {
    status_mib("VmHWM:")
}
