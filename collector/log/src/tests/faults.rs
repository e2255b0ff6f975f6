//! Calls that fail: full disks, broken disks, signals, short writes, at every place.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use emberd_model::{Batch, Offset};

use super::{Dice, Driven, Read, batch, entry, figure, newest_file, on_all_cores, segment_files, small};
use crate::error::{AppendError, OpenError};
use crate::keeper::Bounds;
use crate::log::Entry;
use crate::sim::{Call, Fault, SimDisk, Survives};

/// What became of a workload on a disk that fails.
#[derive(Default)]
struct Ran {
    acked: Vec<Batch>,
    /// How far consumers had passed.
    passed: Offset,
    /// What appends were told that were not acked.
    refused: Vec<AppendError>,
    /// How often the log could not be opened.
    unopened: usize,
    /// The log as it is in the end, if it is open.
    log: Option<Driven>,
}

/// Appends, lets segments go, marks, opens again, all by the dice; goes on whatever fails. A log that failed is opened again,
/// as by a process that starts anew.
fn workload(disk: &SimDisk, seed: u64) -> Ran {
    let mut dice = Dice(seed);
    let mut ran = Ran::default();
    for n in 0..30u64 {
        let step = dice.roll(10);
        let failed = ran.log.as_ref().is_none_or(|log| log.engine.failure.is_some());
        if step == 0 || failed {
            ran.reopen(disk);
        }
        let sizes = [dice.roll(7_000) as usize, dice.roll(300) as usize, 40 + dice.roll(40_000) as usize];
        let sizes = &sizes[..if step == 9 { 3 } else { 2 }];
        let Some(log) = &mut ran.log else { continue };
        match step {
            1 | 2 => {
                ran.passed = ran.passed.max(Offset(log.head().0 * 2 / 3));
                log.passed("a", ran.passed);
                log.tidy();
            }
            3 => log.engine.mark(n % 2 == 0),
            _ => {
                let entries: Vec<Entry> = sizes.iter().zip(3 * n..).map(|(bytes, n)| entry(n, *bytes)).collect();
                ran.append(disk, &entries);
            }
        }
    }
    ran
}

impl Ran {
    fn reopen(&mut self, disk: &SimDisk) {
        self.log = None;
        match Driven::open(disk, roomy()) {
            Ok(mut log) => {
                log.passed("a", self.passed);
                self.log = Some(log);
            }
            Err(OpenError::Disk { .. }) => self.unopened += 1,
            Err(e) => panic!("{e}"),
        }
    }

    fn append(&mut self, disk: &SimDisk, entries: &[Entry]) {
        let Some(log) = &mut self.log else { return };
        let (was_failed, calls) = (log.engine.failure.is_some(), disk.calls());
        let answers = log.append(entries);
        let mut failed = was_failed;
        for (entry, answer) in entries.iter().zip(answers) {
            match answer {
                Ok(offset) => {
                    assert!(!failed, "acked after the disk had failed");
                    self.acked.push(batch(entry, offset));
                }
                Err(e) => {
                    failed |= matches!(e, AppendError::Disk { .. });
                    assert!(!failed || matches!(e, AppendError::Disk { .. }), "{e} after the disk had failed");
                    self.refused.push(e);
                }
            }
        }
        assert!(!was_failed || disk.calls() == calls, "a log that failed touched its disk again");
    }
}

/// The bounds of a log that has more room than its workload needs: nothing is refused but for a fault.
fn roomy() -> Bounds {
    Bounds { budget_bytes: 1 << 20, segment_bytes: 16 << 10, ..small() }
}

/// After whatever failed: what was acked and not passed is there, as it was.
fn check(disk: &SimDisk, ran: &Ran, how: &str) {
    let log = Driven::open(disk, roomy()).unwrap_or_else(|e| panic!("{how}: {e}"));
    let mut held = BTreeMap::new();
    for read in log.read() {
        match read {
            Read::Batch(batch) => drop(held.insert(batch.offset, batch)),
            Read::Lost { from, to } => panic!("{how}: spans {from} to {to} are said to be lost"),
        }
    }
    assert!(log.report.tail <= ran.passed, "{how}: what nobody had passed is gone");
    for batch in &ran.acked {
        match held.get(&batch.offset) {
            Some(held) => assert!(held == batch, "{how}: something else lies where a batch was acked"),
            None => assert!(batch.end() <= ran.passed, "{how}: an acked batch is gone"),
        }
    }
}

/// A fault, where it strikes, and whether it stays.
#[derive(Clone, Copy, Debug)]
struct Point {
    call: Call,
    nth: u64,
    fault: Fault,
    forever: bool,
    /// What kind of call it is that fails first.
    kind: Option<Call>,
}

/// All places at which a workload can fail, in all ways.
fn points(seed: u64) -> Vec<Point> {
    let sound = SimDisk::new();
    sound.record();
    let ran = workload(&sound, seed);
    assert!(ran.refused.is_empty() && ran.unopened == 0, "workload {seed} fails on a sound disk");
    let kinds: Vec<Call> = sound.moments().iter().filter_map(|moment| moment.call).collect();
    let mut points = Vec::new();
    for (nth, kind) in (0..).zip(kinds) {
        let shorts: &[usize] = if kind == Call::Write { &[1, 512, 5_000] } else { &[] };
        let faults = [(Fault::Io, false), (Fault::Io, true), (Fault::Full, false), (Fault::Full, true)];
        let faults = faults.into_iter().chain([(Fault::Interrupted, false)]);
        for (fault, forever) in faults.chain(shorts.iter().map(|bytes| (Fault::Short(*bytes), false))) {
            points.push(Point { call: Call::Change, nth, fault, forever, kind: Some(kind) });
        }
    }
    for nth in 0..sound.looks() {
        let faults = [(Fault::Io, false), (Fault::Io, true), (Fault::Interrupted, false), (Fault::Short(100), false)];
        for (fault, forever) in faults {
            points.push(Point { call: Call::Look, nth, fault, forever, kind: None });
        }
    }
    points
}

/// One workload with one fault.
fn fails_at(seed: u64, point: Point) -> bool {
    let how = format!("workload {seed}, {point:?}");
    let disk = SimDisk::new();
    disk.fail(point.call, point.nth, point.fault, point.forever);
    let mut ran = workload(&disk, seed);
    let full = ran.refused.iter().filter(|e| matches!(e, AppendError::BudgetFull { .. })).count();
    match (point.fault, point.kind) {
        (Fault::Short(_), _) | (Fault::Interrupted, Some(Call::Write)) => {
            assert!(ran.refused.is_empty() && ran.unopened == 0, "{how}: {:?}", ran.refused);
        }
        // Where only the next segment could not be made, the client may come again.
        (Fault::Full, Some(Call::Create | Call::Rename | Call::Remove)) if !point.forever => {
            assert_eq!(full, ran.refused.len(), "{how}: {:?}", ran.refused);
        }
        (Fault::Full, _) => {}
        _ => assert_eq!(full, 0, "{how}: refused for want of room where there is room"),
    }
    disk.heal();
    check(&disk.now().crash(Survives::Nothing), &ran, &how);
    check(&disk.now().crash(Survives::Some { unit: 512, seed: point.nth }), &ran, &how);
    // The log that is open goes on as soon as the fault is over, unless it said that it is at its end.
    let before = ran.acked.len();
    ran.append(&disk, &[entry(900, 300), entry(901, 20_000)]);
    let alive = ran.log.as_ref().is_some_and(|log| log.engine.failure.is_none());
    assert_eq!(ran.acked.len() == before + 2, alive, "{how}: neither went on nor ended");
    ran.log = None;
    check(&disk, &ran, &how);
    !ran.refused.is_empty() || ran.unopened > 0
}

/// Every call of many workloads fails, once or from then on, as a full, a broken, an interrupted or a hasty disk does: what was
/// acked stays, with the power on and with the power cut; what was not acked was refused for the reason that it had; after a
/// write or sync of the log that failed nothing is acked and nothing is tried again; else the log goes on.
#[test]
fn whatever_fails_acked_batches_stay() {
    const WANTED: u64 = 20_000;
    let began = Instant::now();
    let [tried, noticed, seeds] = [const { AtomicU64::new(0) }; 3];
    on_all_cores(|| {
        let seed = seeds.fetch_add(1, Relaxed);
        let points = points(seed);
        let failed = points.iter().filter(|point| fails_at(seed, **point)).count();
        noticed.fetch_add(failed as u64, Relaxed);
        let new = points.len() as u64;
        tried.fetch_add(new, Relaxed) + new < WANTED
    });
    let said = format!("\"fault_points\":{tried:?},\"lost\":0,\"with_refusals\":{noticed:?},\"workloads\":{seeds:?}");
    figure("F5", began, &said);
    assert!(tried.into_inner() >= WANTED);
    assert!(noticed.into_inner() > WANTED / 10, "hardly any fault was felt");
}

/// A sync that fails drops its pages and succeeds the next time (PostgreSQL's fsync surprise of 2018). Nothing that it covered
/// is acked, it is not asked again, and nothing is taken after it.
#[test]
fn fsyncgate_a_failed_sync_is_final() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, small()).unwrap();
    let first = log.append(&[entry(1, 100)]);
    log.tidy();
    disk.fail(Call::Sync, 0, Fault::Io, false);
    let calls = disk.calls();
    let answers = [log.append(&[entry(2, 100), entry(3, 9_000)]), log.append(&[entry(4, 100)])].concat();
    assert!(answers.iter().all(|answer| matches!(answer, Err(AppendError::Disk { .. }))), "{answers:?}");
    log.engine.mark(true);
    assert_eq!(disk.calls() - calls, 2, "one write and one sync, and nothing after the failure");
    drop(log);
    let log = Driven::open(&disk.now().crash(Survives::Everything), small()).unwrap();
    assert_eq!(log.batches(), [batch(&entry(1, 100), first[0].clone().unwrap())]);
}

/// After a failed sync and a restart the page cache still shows what the disk does not have: recovery writes it once more
/// before anyone can read it, so that a later power cut cannot take it back.
#[test]
fn what_recovery_shows_is_durable() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, small()).unwrap();
    log.append(&[entry(1, 100)])[0].clone().unwrap();
    log.tidy();
    disk.fail(Call::Sync, 0, Fault::Io, false);
    assert!(log.append(&[entry(2, 100)])[0].is_err());
    drop(log);
    // The process starts again, the machine did not stop: it reads from the cache.
    let shown = Driven::open(&disk, small()).unwrap().batches();
    let after = Driven::open(&disk.now().crash(Survives::Nothing), small()).unwrap().batches();
    assert_eq!(shown, after, "a consumer may have stored a cursor behind what is gone now");
}

/// A process that ended before the name of its newest segment was durable leaves that to the next one, which must not ack into
/// a file that a power cut can take away.
#[test]
fn names_are_durable_before_anything_is_acked_under_them() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, small()).unwrap();
    disk.fail(Call::SyncDir, 0, Fault::Io, false);
    assert!(matches!(log.append(&[entry(1, 100)])[0], Err(AppendError::Disk { .. })));
    drop(log);
    let mut log = Driven::open(&disk, small()).unwrap();
    let acked = batch(&entry(2, 100), log.append(&[entry(2, 100)])[0].clone().unwrap());
    let after = Driven::open(&disk.now().crash(Survives::Nothing), small()).unwrap();
    assert_eq!(after.batches(), [acked]);
}

/// A disk without room is an answer, not a failure: appends are refused, and taken again without a restart once there is room,
/// or once consumers have passed something, even if the disk never has room again. Then files go, and are used again, as
/// nothing of that asks for room (OpenTelemetry Collector #7198: on a full disk the queue could not even delete).
#[test]
fn otelcol_7198_a_full_disk_still_deletes() {
    for by_passing in [false, true] {
        let disk = SimDisk::new();
        let mut log = Driven::open(&disk, small()).unwrap();
        disk.set_space(Some(200_000));
        let mut n = 0;
        let refused = loop {
            n += 1;
            if let Err(refused) = &log.append(&[entry(n, 9_000)])[0] {
                break refused.clone();
            }
            log.tidy();
        };
        assert!(matches!(refused, AppendError::BudgetFull { .. }), "{refused}");
        assert!(log.append(&[entry(n, 9_000)])[0].is_err(), "still full");
        let before = (segment_files(&disk).len(), disk.paths().len());
        match by_passing {
            true => {
                disk.set_space(Some(0));
                log.passed("a", log.head());
                log.tidy();
                assert!(segment_files(&disk).len() < before.0 && disk.paths().len() < before.1, "nothing was deleted");
            }
            false => disk.set_space(None),
        }
        log.append(&[entry(n, 9_000)])[0].clone().unwrap();
        drop(log);
        assert!(Driven::open(&disk, small()).unwrap().read().len() > 1);
    }
}

/// On a full disk a log opens, and gives what it holds.
#[test]
fn a_full_disk_can_be_opened_and_read() {
    let disk = SimDisk::new();
    let ran = workload(&disk, 0);
    disk.set_space(Some(0));
    check(&disk, &ran, "full");
}

/// Signals and short writes are nobody's business.
#[test]
fn interrupted_and_short_writes_go_unnoticed() {
    for fault in [Fault::Interrupted, Fault::Short(1), Fault::Short(4_096), Fault::Short(6_000)] {
        for nth in 0..3 {
            let disk = SimDisk::new();
            let mut log = Driven::open(&disk, small()).unwrap();
            log.tidy();
            disk.fail(Call::Write, nth, fault, false);
            let entries = [entry(1, 9_000), entry(2, 100)];
            let answers = log.append(&entries);
            let acked: Vec<Batch> = entries.iter().zip(answers).map(|(e, answer)| batch(e, answer.unwrap())).collect();
            drop(log);
            assert_eq!(Driven::open(&disk, small()).unwrap().batches(), acked, "{fault:?}");
        }
    }
}

/// A large body makes its segment longer first; where the disk has no room for that, it alone is refused.
#[test]
fn a_body_too_large_for_the_disk_is_refused_alone() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, small()).unwrap();
    log.append(&[entry(1, 100)])[0].clone().unwrap();
    log.tidy();
    disk.set_space(Some(80_000));
    let answers = log.append(&[entry(2, 100), entry(3, 60_000), entry(4, 100)]);
    assert!(matches!(answers[1], Err(AppendError::BudgetFull { .. })), "{:?}", answers[1]);
    assert!(answers[0].is_ok() && answers[2].is_ok());
    let path = newest_file(&log);
    disk.set_space(None);
    let offset = log.append(&[entry(3, 60_000)])[0].clone().unwrap();
    assert!(newest_file(&log) != path, "it went into a segment of its own");
    assert!(log.batches().contains(&batch(&entry(3, 60_000), offset)));
}
