//! Where everything lies: whether it can be written, has room, is a real disk, and how fast it is; and what time it is there.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Finding, Patient, bytes};
use crate::config::Durability;

const DIRECTORY: &str = "data directory";
const ROOM: &str = "room on disk";
const SPEED: &str = "disk speed";

/// Writes of 4 KiB, each followed by fdatasync, as the log does them; fewer if time is over first.
const SAMPLES: usize = 64;
const SAMPLING_MAX: Duration = Duration::from_secs(1);
/// Senders wait for one of these.
const SYNC_MAX: Duration = Duration::from_millis(20);

/// File systems that do not keep what fdatasync said they keep, or not on a disk of this machine.
const FILE_SYSTEMS: [(u64, &str, &str); 8] = [
    (0x0102_1994, "tmpfs", "it is memory: a reboot takes all spans away"),
    (0x8584_58f6, "ramfs", "it is memory: a reboot takes all spans away"),
    (0x794c_7630, "overlayfs", "it is a container's own layer, and goes with the container: mount a volume there"),
    (0x6969, "nfs", "it is on another machine: a pause there is a pause of every sender; use a local disk"),
    (0xff53_4d42, "cifs", "it is on another machine, and locks may not hold; use a local disk"),
    (0xfe53_4d42, "smb2", "it is on another machine, and locks may not hold; use a local disk"),
    (0x0102_1997, "9p", "it is shared from a host, which may not sync; use a local disk"),
    (0x6573_5546, "fuse", "what its fdatasync promises depends on the program behind it; use a local disk"),
];

/// The directory, if it is there; else the one in which it would be made.
fn nearest(dir: &Path) -> Option<PathBuf> {
    let dir = std::path::absolute(dir).ok()?;
    if dir.exists() { Some(dir) } else { dir.parent().map(Path::to_path_buf).filter(|parent| parent.exists()) }
}

pub(super) async fn directory(patient: Patient) -> Vec<Finding> {
    blocking(DIRECTORY, move || {
        let dir = &patient.config.data_dir;
        let shown = dir.display();
        let Some(there) = nearest(dir) else {
            let advice = "make its parent directory, or name another with --data-dir";
            return vec![Finding::failed(
                DIRECTORY,
                format!("{shown} cannot be made: its parent is not there"),
                advice,
            )];
        };
        let mut findings = vec![writable(dir, &there)];
        findings.extend(kept(&there));
        findings.push(room(&patient, &there));
        findings
    })
    .await
}

fn writable(dir: &Path, there: &Path) -> Finding {
    let shown = dir.display();
    let owner = "give it to the user that emberd runs as (chown), or name another with --data-dir";
    if !there.is_dir() {
        return Finding::failed(DIRECTORY, format!("{shown} is not a directory"), "name another with --data-dir");
    }
    match Scratch::new(there) {
        Err(error) => Finding::failed(DIRECTORY, format!("{} cannot be written: {error}", there.display()), owner),
        Ok(_) if !dir.exists() => Finding::ok(DIRECTORY, format!("{shown} is made at the first start")),
        Ok(_) => {
            let mode = there.metadata().map(|of| of.permissions().mode() & 0o777).unwrap_or(0);
            match mode & 0o027 {
                0 => Finding::ok(DIRECTORY, format!("{shown} can be written, mode {mode:03o}")),
                _ => {
                    let found = format!("{shown} can be written, and seen by others (mode {mode:03o})");
                    Finding::warning(DIRECTORY, found, format!("prompts and answers lie there: chmod 700 {shown}"))
                }
            }
        }
    }
}

fn kept(there: &Path) -> Option<Finding> {
    let kind = rustix::fs::statfs(there).ok()?.f_type as u64 & 0xffff_ffff;
    let (_, name, why) = FILE_SYSTEMS.into_iter().find(|(known, ..)| *known == kind)?;
    Some(Finding::warning("file system", format!("{} is {name}", there.display()), why))
}

fn room(patient: &Patient, there: &Path) -> Finding {
    let stat = match rustix::fs::statvfs(there) {
        Ok(stat) => stat,
        Err(error) => return Finding::warning(ROOM, format!("cannot be asked: {error}"), "see `df`"),
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let (budget, log) = (patient.config.log.budget.0, patient.config.data_dir.join("log"));
    let used: u64 = std::fs::read_dir(log)
        .map(|entries| entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|of| of.len()).sum())
        .unwrap_or(0);
    // One spare segment aside, as the key says.
    let needed = (budget + patient.config.log.segment.0).saturating_sub(used);
    let found = format!("{} free; the log has {} of its budget of {}", bytes(free), bytes(used), bytes(budget));
    if free >= needed {
        return Finding::ok(ROOM, found);
    }
    let advice = format!("free {}, or lower [log] budget: the disk is full before the budget is", bytes(needed - free));
    if free < patient.config.log.segment.0 {
        return Finding::failed(ROOM, found, advice);
    }
    Finding::warning(ROOM, found, advice)
}

pub(super) async fn disk(patient: Patient) -> Vec<Finding> {
    blocking(SPEED, move || {
        let log = patient.config.data_dir.join("log");
        let dir = if log.is_dir() { Some(log) } else { nearest(&patient.config.data_dir) };
        // That there is none, or that it cannot be written, is told by the other check.
        let sampled = dir.and_then(|dir| Scratch::new(&dir).ok()).map(|mut scratch| scratch.sample());
        match sampled {
            None => Vec::new(),
            Some(Err(error)) => vec![Finding::failed(SPEED, format!("cannot write and sync: {error}"), "see `dmesg`")],
            Some(Ok(times)) => vec![speed(&patient, times)],
        }
    })
    .await
}

fn speed(patient: &Patient, mut times: Vec<Duration>) -> Finding {
    times.sort();
    let at = |part: f64| times[((times.len() as f64 * part) as usize).min(times.len() - 1)];
    let (p50, p99) = (at(0.5), at(0.99));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let found = format!("fdatasync of 4 KiB: p50 {:.2} ms, p99 {:.2} ms ({} writes)", ms(p50), ms(p99), times.len());
    if p99 <= SYNC_MAX {
        return Finding::ok(SPEED, found);
    }
    if patient.config.log.durability == Durability::Os {
        return Finding::ok(SPEED, format!("{found}; [log] durability = \"os\" does not wait for it"));
    }
    let advice = "every sender waits for it (many share one): use a disk with a write cache that survives a power cut, or look who else \
                  writes there";
    Finding::warning(SPEED, found, advice)
}

/// A file of the doctor's own, gone with it.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn new(dir: &Path) -> std::io::Result<Self> {
        let path = dir.join(format!(".doctor-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()));
        let file = File::options().create_new(true).write(true).mode(0o600).open(&path)?;
        Ok(Self { path, file })
    }

    /// How long each write and sync took; over blocks that were written before, as the log's are.
    fn sample(&mut self) -> std::io::Result<Vec<Duration>> {
        self.file.write_all(&vec![0; SAMPLES * 4096])?;
        self.file.sync_all()?;
        self.file.seek(SeekFrom::Start(0))?;
        let (began, mut times) = (Instant::now(), Vec::with_capacity(SAMPLES));
        while times.len() < SAMPLES && (times.is_empty() || began.elapsed() < SAMPLING_MAX) {
            let before = Instant::now();
            self.file.write_all(&[times.len() as u8 + 1; 4096])?;
            self.file.sync_data()?;
            times.push(before.elapsed());
        }
        Ok(times)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// 2025-01-01: no emberd is older.
const EARLIEST_S: u64 = 1_735_689_600;
/// 2100-01-01.
const LATEST_S: u64 = 4_102_444_800;

pub(super) async fn clock(patient: Patient) -> Vec<Finding> {
    let now = patient.clock.now();
    let shown = crate::told::moment(i64::try_from(now.0 / 1_000).unwrap_or(i64::MAX));
    let is_sane = (EARLIEST_S..LATEST_S).contains(&(now.0 / 1_000_000_000));
    let advice = "set the clock (timedatectl set-ntp true): spans are booked by hour, and tokens end by it";
    vec![match is_sane {
        true => Finding::ok("clock", shown),
        false => Finding::failed("clock", shown, advice),
    }]
}

async fn blocking(check: &'static str, look: impl FnOnce() -> Vec<Finding> + Send + 'static) -> Vec<Finding> {
    let looked = tokio::task::spawn_blocking(look).await;
    looked.unwrap_or_else(|died| vec![Finding::failed(check, died.to_string(), "report this")])
}
