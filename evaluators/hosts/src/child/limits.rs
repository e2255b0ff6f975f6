//! What the operating system lets a plugin's process take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Limits of a process; [`processes`](Self::processes) and [`resident_bytes`](Self::resident_bytes) of it and all its offspring.
#[derive(Clone, Copy, Debug)]
pub struct ProcessLimits {
    /// Address space of each process (`RLIMIT_AS`).
    pub address_space_bytes: u64,
    /// Open files of each process (`RLIMIT_NOFILE`).
    pub open_files: u64,
    /// The largest file that it can write (`RLIMIT_FSIZE`).
    pub file_bytes: u64,
    /// Processes and threads of its user (`RLIMIT_NPROC`): everything that runs as this user counts, and the superuser is exempt.
    pub user_processes: u64,
    /// Processes at once; looked at several times a second, and more is the end of all of them.
    pub processes: usize,
    /// Memory in use by all of them together; looked at likewise.
    pub resident_bytes: u64,
}

impl Default for ProcessLimits {
    fn default() -> Self {
        Self {
            address_space_bytes: 4 << 30,
            open_files: 1024,
            file_bytes: 256 << 20,
            user_processes: 4096,
            processes: 64,
            resident_bytes: 2 << 30,
        }
    }
}

impl ProcessLimits {
    /// Sets them on the calling process. Only system calls: it is called between fork and exec.
    pub(crate) fn impose(&self) -> std::io::Result<()> {
        let limits = [
            (Resource::As, self.address_space_bytes),
            (Resource::Nofile, self.open_files),
            (Resource::Fsize, self.file_bytes),
            (Resource::Nproc, self.user_processes),
            (Resource::Core, 0),
        ];
        for (resource, wanted) in limits {
            // Only the superuser could go above emberd's own limit.
            let most = getrlimit(resource).maximum.map_or(wanted, |own| own.min(wanted));
            setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
        Ok(())
    }
}
