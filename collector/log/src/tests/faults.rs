//! Calls that fail: full disks, broken disks, signals, short writes, at every place.

use emberd_model::{Batch, Offset};

use super::{Driven, batch, entry, newest_file, small};
use crate::error::AppendError;
use crate::sim::{Call, Fault, SimDisk, Survives};

/// Appends, lets segments go, opens again; goes on whatever fails. Gives what was acked and, if any, the answers that were
/// errors.
fn workload(disk: &SimDisk) -> (Vec<Batch>, Vec<AppendError>) {
    let (mut acked, mut errors) = (Vec::new(), Vec::new());
    let Ok(mut log) = Driven::open(disk, small()) else { return (acked, errors) };
    for n in 0..40u64 {
        let entries = [entry(2 * n, (n * 331 % 7_000) as usize), entry(2 * n + 1, 50)];
        for (entry, answer) in entries.iter().zip(log.append(&entries)) {
            match answer {
                Ok(offset) => acked.push(batch(entry, offset)),
                Err(e) => errors.push(e),
            }
        }
        if n % 8 == 5 {
            log.passed("a", Offset(log.head().0 / 3));
            log.tidy();
        }
        if n == 20 {
            log.engine.mark(true);
        }
    }
    (acked, errors)
}

/// After whatever failed: what was acked and not passed is there, as it was.
fn check(disk: &SimDisk, acked: &[Batch], how: &str) {
    let log = Driven::open(disk, small()).unwrap_or_else(|e| panic!("{how}: {e}"));
    let held = log.batches();
    let passed = acked.last().map_or(Offset(0), Batch::end).0 / 3;
    let due: Vec<&Batch> =
        acked.iter().filter(|batch| batch.end().0 > passed && batch.end() > log.report.tail).collect();
    assert!(log.report.tail.0 <= passed, "{how}: what nobody had passed is gone");
    assert!(due.iter().all(|batch| held.contains(batch)), "{how}: an acked batch is gone");
    let known = |batch: &Batch| acked.contains(batch) || acked.iter().all(|acked| acked.offset != batch.offset);
    assert!(held.iter().all(known), "{how}: something else lies where a batch was acked");
}

/// Every call that changes something fails once, or from then on, as a full or a broken disk does: what was acked stays, with
/// the power on and with the power cut, and after a broken write or sync of the log nothing is acked any more.
#[test]
fn whatever_fails_acked_batches_stay() {
    let sound = SimDisk::new();
    workload(&sound);
    let calls = sound.calls();
    let mut points = 0;
    for fault in [Fault::Io, Fault::Full, Fault::Interrupted, Fault::Short(512), Fault::Short(5_000)] {
        for nth in 0..calls {
            for forever in [false, true] {
                if forever && matches!(fault, Fault::Interrupted | Fault::Short(_)) {
                    continue;
                }
                let disk = SimDisk::new();
                disk.fail(Call::Change, nth, fault, forever);
                let (acked, _) = workload(&disk);
                disk.heal();
                let how = format!("{fault:?} at call {nth}, forever {forever}");
                check(&disk.now().crash(Survives::Nothing), &acked, &how);
                check(&disk.now().crash(Survives::Some { unit: 512, seed: nth }), &acked, &how);
                check(&disk, &acked, &how);
                points += 1;
            }
        }
    }
    println!("{points} fault points over {calls} calls");
}

/// A sync that fails drops its pages and succeeds the next time (PostgreSQL's fsync surprise of 2018). Nothing that it covered is acked, it is not asked again,
/// and nothing is taken after it.
#[test]
fn a_failed_sync_is_final() {
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

/// A disk without room is an answer, not a failure (OpenTelemetry Collector contrib #7198 could not even delete any more): appends are refused, and taken again without a restart once there is
/// room, or once consumers have passed a segment, whose file is used again without asking the disk for anything.
#[test]
fn a_full_disk_refuses_and_recovers() {
    for by_passing in [false, true] {
        let disk = SimDisk::new();
        let mut log = Driven::open(&disk, small()).unwrap();
        disk.set_space(Some(100_000));
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
        match by_passing {
            true => log.passed("a", log.head()),
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
    let (acked, _) = workload(&disk);
    disk.set_space(Some(0));
    check(&disk, &acked, "full");
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
