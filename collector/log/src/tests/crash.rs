//! Power cuts at every call, with every kind of half-written disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use emberd_model::{Batch, Offset};

use super::{Dice, Driven, batch, dir, entry, small};
use crate::disk::Disk;
use crate::log::Entry;
use crate::sim::{Moment, SimDisk, Survives};

/// A workload that ran, with all that it may be held to.
struct Script {
    seed: u64,
    moments: Vec<Moment>,
    /// Every batch that was ever submitted, by its offset.
    submitted: BTreeMap<Offset, Batch>,
    /// After so many calls, all before this offset was acked.
    acked: Vec<(u64, Offset)>,
    /// After so many calls, consumers had passed this offset.
    passed: Vec<(u64, Offset)>,
}

/// Appends in groups, lets segments be passed and used again, marks, and stops and opens again, all by the dice.
fn script(seed: u64, steps: usize) -> Script {
    let mut dice = Dice(seed);
    let disk = SimDisk::new();
    disk.record();
    let mut log = Driven::open(&disk, small()).unwrap();
    let (mut submitted, mut acked, mut passed) = (BTreeMap::new(), vec![(0, Offset(0))], vec![(0, Offset(0))]);
    let mut n = 0;
    for _ in 0..steps {
        match dice.roll(12) {
            0 => {
                // A consumer is never further than the log, and usually some way behind.
                let cursor = Offset(log.head().0 - dice.roll(1 + log.head().0 / 4));
                let cursor = cursor.max(passed.last().unwrap().1);
                passed.push((disk.calls(), cursor));
                log.passed("a", cursor);
                log.tidy();
            }
            1 => log.engine.mark(dice.roll(2) == 0),
            2 => {
                log.engine.mark(true);
                log = Driven::open(&disk, small()).unwrap();
                log.passed("a", passed.last().unwrap().1);
            }
            _ => {
                let entries: Vec<Entry> = (0..=dice.roll(4)).map(|_| (n += 1, entry(n, size(&mut dice))).1).collect();
                for (entry, answer) in entries.iter().zip(log.append(&entries)) {
                    // The budget may be spent; then nothing was promised.
                    if let Ok(offset) = answer {
                        submitted.insert(offset, batch(entry, offset));
                    }
                }
                acked.push((disk.calls(), log.head()));
            }
        }
    }
    Script { seed, moments: disk.moments(), submitted, acked, passed }
}

fn size(dice: &mut Dice) -> usize {
    match dice.roll(10) {
        0 => 0,
        1 => 4_000 + dice.roll(200) as usize,
        2 => 10_000,
        3 if dice.roll(4) == 0 => 40_000,
        _ => dice.roll(900) as usize,
    }
}

fn at(calls: u64, notes: &[(u64, Offset)]) -> Offset {
    notes.iter().rev().find(|(when, _)| *when <= calls).map_or(Offset(0), |(_, offset)| *offset)
}

impl Script {
    /// What a recovered log must hold: all that was acked and not passed, and nothing that was not submitted.
    fn check(&self, moment: &Moment, log: &Driven, how: &str) -> Vec<Batch> {
        let held = log.batches();
        let (acked, passed) = (at(moment.calls, &self.acked), at(moment.calls, &self.passed));
        for batch in &held {
            assert!(self.submitted.get(&batch.offset) == Some(batch), "invented at {}, {how}", batch.offset);
        }
        assert!(held.windows(2).all(|pair| pair[0].end() == pair[1].offset), "a gap, {how}");
        let from = held.first().map_or(log.report.head, |first| first.offset);
        let to = held.last().map_or(log.report.head, Batch::end);
        assert!(from <= passed, "lost before {from}, only {passed} was passed, {how}");
        assert!(to >= acked, "lost after {to}, {acked} was acked, {how}");
        assert_eq!((log.report.tail, log.report.head), (from, to), "{how}");
        assert!(log.report.damaged.is_empty(), "damage reported where there is none, {how}");
        held
    }

    /// One power cut, and what recovery makes of it.
    fn survives(&self, moment: &Moment, survives: Survives, go_on: bool) {
        let how = format!("script {}, call {}, {survives:?}", self.seed, moment.calls);
        let disk = moment.crash(survives);
        let log = Driven::open(&disk, small()).unwrap();
        let held = self.check(moment, &log, &how);
        drop(log);
        if go_on {
            self.goes_on(&disk, held, &how);
        }
    }

    /// Recovers again, goes on writing, and loses power once more right after an ack.
    fn goes_on(&self, disk: &SimDisk, held: Vec<Batch>, how: &str) {
        let mut log = Driven::open(disk, small()).unwrap();
        assert_eq!(log.report.torn_bytes, 0, "cut twice, {how}");
        assert!(log.batches() == held, "recovered twice, {how}");
        log.passed("a", held.first().map_or(Offset(0), |first| first.offset));
        let fresh = [entry(900_001, 300), entry(900_002, 5_000)];
        let answers = log.append(&fresh);
        drop(log);
        let mut expected = held;
        expected.extend(fresh.iter().zip(answers).filter_map(|(entry, answer)| Some(batch(entry, answer.ok()?))));
        let log = Driven::open(&disk.now().crash(Survives::Nothing), small()).unwrap();
        assert!(log.batches() == expected, "going on, {how}");
    }
}

/// The half-written disks that are tried at a moment.
fn ways(moment: &Moment, seeds: u64) -> Vec<Survives> {
    let mut ways = vec![Survives::Nothing];
    if moment.is_durable() {
        return ways;
    }
    ways.push(Survives::Everything);
    for unit in [4096, 512] {
        ways.extend((0..seeds).map(|seed| Survives::Some { unit, seed }));
    }
    let len = moment.last_write_bytes();
    // At every sector, and off the edges of those where headers lie.
    ways.extend((0..len).step_by(512).map(|bytes| Survives::Torn { bytes }));
    ways.extend([1, 7, 63, 64, 65, 103, 104, 4095, 4097, 4160].into_iter().map(|bytes| Survives::Torn { bytes }));
    ways
}

/// How many crash states to try; 1,000,000 is what the nightly run does.
fn states_wanted() -> usize {
    std::env::var("EMBERD_CRASH_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(30_000)
}

/// A batch acked before power loss is read back after it, byte for byte, at whichever call the power failed and whatever part
/// of the last writes survived; nothing else appears; and the log goes on from there.
#[test]
fn acked_batches_survive_power_loss_at_every_write() {
    let (began, wanted) = (Instant::now(), states_wanted());
    let (states, calls, seeds) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
    let work = || {
        while states.load(Relaxed) < wanted {
            let script = script(seeds.fetch_add(1, Relaxed), 40);
            for moment in &script.moments {
                let ways = ways(moment, 6);
                for (nth, way) in ways.iter().enumerate() {
                    script.survives(moment, *way, nth % 4 == moment.calls as usize % 4);
                }
                states.fetch_add(ways.len(), Relaxed);
            }
            calls.fetch_add(script.moments.len(), Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let took = began.elapsed();
    println!("{states:?} crash states at {calls:?} calls of {seeds:?} workloads, none lost, in {took:?}");
}

/// A crash during recovery, and during the recovery of that, changes nothing: three deep.
#[test]
fn recovery_survives_power_loss_at_every_write() {
    let mut states = 0;
    for seed in 100..104 {
        let script = script(seed, 25);
        for moment in script.moments.iter().step_by(3) {
            for way in
                [Survives::Everything, Survives::Some { unit: 4096, seed }, Survives::Some { unit: 512, seed: 1 }]
            {
                // What the first recovery could have found: later ones may find less of what was not acked, never more.
                states += deeper(&script, moment, &moment.crash(way), 2);
            }
        }
    }
    println!("{states} states of crashed recoveries");
}

fn deeper(script: &Script, moment: &Moment, disk: &SimDisk, depth: u32) -> usize {
    disk.record();
    let log = Driven::open(disk, small()).unwrap();
    script.check(moment, &log, &format!("script {}, {depth} recoveries to go", script.seed));
    let mut states = 1;
    if depth > 0 {
        for crashed in disk.moments() {
            for way in
                [Survives::Nothing, Survives::Some { unit: 512, seed: u64::from(depth) }, Survives::Torn { bytes: 600 }]
            {
                states += deeper(script, moment, &crashed.crash(way), depth - 1);
            }
        }
    }
    states
}

/// A directory whose names were never synced, or that is empty, is an empty log.
#[test]
fn nothing_is_a_log_too() {
    let disk = SimDisk::new();
    for _ in 0..2 {
        let mut log = Driven::open(&disk, small()).unwrap();
        assert_eq!((log.report.head, log.report.tail, log.report.segments), (Offset(0), Offset(0), 0));
        log.tidy();
    }
    assert_eq!(disk.list(dir()).unwrap().len(), 1, "one segment is prepared, and found again");
}
