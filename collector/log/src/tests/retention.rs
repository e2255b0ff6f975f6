//! What is kept, for how long, and in how much room.

use std::time::Duration;

use emberd_model::Offset;
use proptest::prelude::*;

use super::{Dice, Driven, entry, segment_files, small};
use crate::error::AppendError;
use crate::keeper::Bounds;
use crate::sim::{Call, Fault, SimDisk};

fn keeping(seconds: u64) -> Bounds {
    Bounds { keep: Duration::from_secs(seconds), ..small() }
}

/// Appends batches of which each fills most of a segment.
fn fill(log: &mut Driven, segments: u64) -> Vec<Result<Offset, AppendError>> {
    (0..segments).flat_map(|n| log.append(&[entry(n, 20_000)])).collect()
}

/// What some consumer has not passed stays, whatever the others say, and whatever the time; without a consumer all stays.
#[test]
fn what_a_consumer_has_not_passed_stays() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, small()).unwrap();
    fill(&mut log, 4);
    log.elapsed = Duration::MAX;
    log.tidy();
    assert_eq!(log.shelf().segments().len(), 4, "nobody had said that it was done");
    log.passed("slow", Offset(1));
    log.passed("fast", log.head());
    log.tidy();
    assert_eq!(log.shelf().tail(), Some(Offset(1)), "the slow one has passed the first batch, of one span");
    log.passed("slow", log.head());
    log.tidy();
    assert_eq!(log.shelf().segments().len(), 1, "the newest stays: the next start learns the head from it");
    assert_eq!(Driven::open(&disk, small()).unwrap().report.head, log.head());
}

/// A passed segment stays for its time; a consumer that goes back keeps what it went back to.
#[test]
fn passed_segments_stay_for_their_time() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, keeping(60)).unwrap();
    fill(&mut log, 3);
    let at = Duration::from_secs;
    log.elapsed = at(100);
    log.passed("a", log.head());
    log.elapsed = at(159);
    log.tidy();
    assert_eq!(log.shelf().segments().len(), 3, "not yet");
    log.passed("a", Offset(1));
    log.passed("a", log.head());
    log.elapsed = at(160);
    log.tidy();
    assert_eq!(log.shelf().segments().len(), 2, "the first was passed all along");
    log.elapsed = at(219);
    log.tidy();
    assert_eq!(log.shelf().tail(), Some(Offset(3)), "the second was passed again later, and its time is over too");
}

/// At the budget, passed segments go before their time; what was not passed makes appends wait.
#[test]
fn the_budget_comes_before_the_time() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, keeping(1 << 30)).unwrap();
    let answers = fill(&mut log, 9);
    assert!(answers[..8].iter().all(Result::is_ok));
    let full = 256 << 10;
    assert!(
        matches!(answers[8], Err(AppendError::BudgetFull { used_bytes, budget_bytes }) if used_bytes == full && budget_bytes == full)
    );
    let calls = disk.calls();
    fill(&mut log, 3);
    assert_eq!(disk.calls(), calls, "a refused batch touches nothing");
    log.passed("a", Offset(1));
    assert!(fill(&mut log, 1)[0].is_ok());
    assert!(fill(&mut log, 1)[0].is_err());
    assert_eq!(log.shelf().tail(), Some(Offset(1)));
}

/// A segment that everyone has passed stays until the next one holds something, or the log would forget where it is
/// (NATS #6888: a stream forgotten after kill -9).
#[test]
fn nats_6888_the_head_is_never_forgotten() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, small()).unwrap();
    fill(&mut log, 2);
    log.tidy();
    log.passed("a", log.head());
    // The next batch needs a new segment, and cannot be written to it.
    disk.fail(Call::Write, 0, Fault::Io, false);
    assert!(fill(&mut log, 1)[0].is_err());
    log.tidy();
    let again = Driven::open(&disk, small()).unwrap();
    assert_eq!((again.report.head, log.head()), (Offset(3), Offset(3)));
}

/// Small batches still fit into a segment that is too full for a large one.
#[test]
fn a_refused_batch_does_not_take_others_with_it() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, small()).unwrap();
    fill(&mut log, 8);
    let answers = log.append(&[entry(1, 20_000), entry(2, 10), entry(3, 20_000), entry(4, 10)]);
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, true]);
    assert_eq!(log.batches().len(), 10);
}

/// Once the log runs in a circle, files are used again, and the disk is asked for no more room.
#[test]
fn segments_are_used_again() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, small()).unwrap();
    let turn = |log: &mut Driven| {
        fill(log, 1)[0].clone().unwrap();
        log.passed("a", log.head());
        log.tidy();
    };
    (0..4).for_each(|_| turn(&mut log));
    disk.set_space(Some(0));
    (0..50).for_each(|_| turn(&mut log));
    assert!(disk.paths().len() <= 5, "{:?}", disk.paths());
    drop(log);
    let log = Driven::open(&disk, small()).unwrap();
    assert_eq!(log.batches().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever consumers do, in any order: what one has not passed can be read, and files take at most the budget and one
    /// segment.
    #[test]
    fn nothing_goes_that_is_needed(seed in any::<u64>(), keep in 0u64..3) {
        let disk = SimDisk::new();
        let mut dice = Dice(seed);
        let mut log = Driven::open(&disk, keeping(keep)).unwrap();
        let mut cursors = [Offset(0); 3];
        let names = ["a", "b", "c"];
        names.iter().for_each(|name| log.passed(name, Offset(0)));
        for step in 0..80 {
            log.elapsed = Duration::from_millis(step * 500);
            match dice.roll(4) {
                0 => log.tidy(),
                1 => {
                    let who = dice.roll(3) as usize;
                    let ahead = log.head().since(cursors[who]);
                    cursors[who] = cursors[who].plus(dice.roll(ahead + 1));
                    log.passed(names[who], cursors[who]);
                }
                _ => drop(log.append(&[entry(step, dice.roll(40_000) as usize)])),
            }
            let slowest = cursors.iter().min().unwrap();
            prop_assert!(log.shelf().tail().unwrap_or_default() <= *slowest);
            let files: usize = disk.paths().iter().filter_map(|path| disk.bytes(path)).map(|bytes| bytes.len()).sum();
            prop_assert!(files <= 9 * (32 << 10) + (16 << 10), "{files} bytes in {:?}", segment_files(&disk));
        }
        let held = log.batches();
        prop_assert!(held.windows(2).all(|pair| pair[0].end() == pair[1].offset));
        prop_assert_eq!(held.last().map_or(Offset(0), emberd_model::Batch::end), log.head());
    }
}
