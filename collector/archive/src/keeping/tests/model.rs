//! Scripts of commits, compaction, retention and erasing, with a fault at every single call of the place.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::{Archive, Catalogue, Compaction, Error, Retention, Rewritten, Totals, read_file, verify};
use super::sim::{HOWS, How, Law, Sim};
use super::{LOG, MONDAY, Row, day, decoded, merged, part, parts, row};
use crate::part::Day;

/// A step of a script.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many spans more.
    Commit(u64),
    /// One step of compaction; the number says what day is today.
    Compact(u32),
    /// Days before this one go.
    Retain(u32),
    /// Spans go whose value leaves this rest.
    Erase(u64),
    /// What counts for nothing is looked for.
    Sweep,
    /// The process ends in peace, and a new one begins.
    Reopen,
}

/// Numbers in an order that a seed decides.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn script(seed: u64, steps: usize) -> Vec<Step> {
    let mut dice = Dice(seed);
    let step = |_| match dice.roll(16) {
        0..=7 => Step::Commit(1 + dice.roll(9)),
        8..=11 => Step::Compact(dice.roll(4) as u32),
        12 => Step::Retain(dice.roll(2) as u32),
        13 => Step::Erase(dice.roll(5)),
        14 => Step::Sweep,
        _ => Step::Reopen,
    };
    (0..steps).map(step).collect()
}

/// Small enough that several files are enough.
const WHEN: Compaction = Compaction { bytes_target: 2_000, rows_target: 60, open_files: 4, closed_files: 2 };

/// A process that archives, and what must be in its archive.
struct Run {
    sim: Arc<Sim>,
    archive: Option<Archive>,
    /// The spans that must count.
    due: BTreeSet<Row>,
    /// Where the archive must go on.
    cursor: u64,
    dice: Dice,
    /// Whatever is tried again succeeds at last.
    tries: usize,
}

impl Run {
    fn new(seed: u64, faults: Vec<(usize, How)>) -> Self {
        // What is done about a failure is another thing after each.
        let mixed = faults.first().map_or(0, |(at, how)| (*at as u64 * 31 + *how as u64) << 20);
        let sim = Arc::new(Sim::new(faults));
        Self { sim, archive: None, due: BTreeSet::new(), cursor: 0, dice: Dice(seed ^ mixed), tries: 0 }
    }

    fn failed(&mut self, error: &Error) {
        assert!(matches!(error, Error::Place(_)), "an error that is none of the place's: {error}");
        self.tries += 1;
        assert!(self.tries < 600, "it does not end: {error}");
        // A process that is dead is gone; another one may give up and begin anew.
        if self.sim.is_dead() || self.dice.roll(4) == 0 {
            self.archive = None;
        }
    }

    /// The archive, open; a cursor that moved while nobody heard of it is one that was wanted.
    async fn open(&mut self, wanted: Option<u64>) -> &mut Archive {
        while self.archive.is_none() {
            self.sim.revive();
            match Archive::open(self.sim.clone(), LOG).await {
                Ok(mut archive) => {
                    archive.whole_every = 5;
                    self.archive = Some(archive);
                }
                Err(error) => self.failed(&error),
            }
        }
        let archive = self.archive.as_mut().expect("it was opened");
        let cursor = archive.cursor().unwrap_or(0);
        if wanted == Some(cursor) {
            self.due.extend((self.cursor..cursor).map(row));
            self.cursor = cursor;
        }
        assert_eq!(cursor, self.cursor, "another cursor than was committed");
        let book = if cursor == 0 { String::new() } else { format!("up to {cursor}") };
        assert_eq!(archive.book(), book);
        archive
    }

    async fn commit(&mut self, spans: u64) {
        let (mut spans, first) = (spans, self.cursor);
        loop {
            let to = first + spans;
            self.open(Some(to)).await;
            if self.cursor == to {
                break;
            }
            self.sim.demand(Law::Once);
            let archive = self.archive.as_mut().expect("it is open");
            match archive.commit(first, to, parts(first, to), format!("up to {to}")).await {
                Ok(()) => {
                    self.due.extend((first..to).map(row));
                    self.cursor = to;
                    break;
                }
                Err(error) => {
                    self.failed(&error);
                    self.view_is_between(&self.due, &self.due.iter().copied().chain((first..to).map(row)).collect())
                        .await;
                    spans = self.other_length(first, spans).await;
                }
            }
        }
    }

    /// Another number of spans than was tried, now and then: once it is known that the attempt failed.
    async fn other_length(&mut self, first: u64, spans: u64) -> u64 {
        if self.dice.roll(2) == 0 {
            return spans;
        }
        loop {
            self.open(Some(first + spans)).await;
            if self.cursor != first {
                return spans;
            }
            let archive = self.archive.as_mut().expect("it is open");
            match archive.settle().await {
                Ok(()) if archive.cursor().unwrap_or(0) == first => return 1 + self.dice.roll(9),
                Ok(()) => return spans,
                Err(error) => self.failed(&error),
            }
        }
    }

    async fn compact(&mut self, today: u32) {
        loop {
            self.open(None).await;
            self.sim.demand(Law::NoneLost);
            let archive = self.archive.as_mut().expect("it is open");
            let done = archive.compact(Day(MONDAY + today), &WHEN, merged).await;
            self.sim.demand(Law::Free);
            match done {
                Ok(_) => return,
                Err(error) => self.failed(&error),
            }
            self.view_is_between(&self.due, &self.due).await;
        }
    }

    async fn retain(&mut self, first: u32) {
        let after: BTreeSet<Row> =
            self.due.iter().copied().filter(|(offset, _)| day(*offset) >= MONDAY + first).collect();
        loop {
            let keep = Retention { days: Some(0), bytes: None };
            self.open(None).await;
            let archive = self.archive.as_mut().expect("it is open");
            match archive.retain(Day(MONDAY + first), &keep).await {
                Ok(_) => break,
                Err(error) => self.failed(&error),
            }
            self.view_is_between(&after, &self.due).await;
        }
        self.due = after;
    }

    async fn sweep(&mut self) {
        loop {
            self.open(None).await;
            let archive = self.archive.as_mut().expect("it is open");
            match archive.sweep().await {
                Ok(_) => return,
                Err(error) => self.failed(&error),
            }
            self.view_is_between(&self.due, &self.due).await;
        }
    }

    async fn erase(&mut self, rest: u64) {
        let goes = move |(_, value): &Row| value % 5 == rest;
        let after: BTreeSet<Row> = self.due.iter().copied().filter(|row| !goes(row)).collect();
        let (mut totals, mut is_one_process) = (Totals::default(), self.archive.is_some());
        loop {
            is_one_process &= self.archive.is_some();
            self.open(None).await;
            let rewrite = move |file: bytes::Bytes| {
                let (gone, kept): (Vec<Row>, Vec<Row>) = decoded(&file).into_iter().partition(goes);
                let parts = if kept.is_empty() { Vec::new() } else { vec![part(day(kept[0].0), &kept)] };
                let done = Rewritten { parts, erased: gone.len() as u64, changed: 0 };
                Ok((!gone.is_empty()).then_some(done))
            };
            let archive = self.archive.as_mut().expect("it is open");
            match archive.rewrite_where(&mut totals, |_| true, rewrite).await {
                Ok(()) => break,
                Err(error) => self.failed(&error),
            }
            self.view_is_between(&after, &self.due).await;
        }
        let erased = (self.due.len() - after.len()) as u64;
        assert!(totals.erased <= erased && (!is_one_process || totals.erased == erased), "{totals:?} of {erased}");
        self.due = after;
        let seen = self.sim.seen();
        assert_eq!(seen.iter().find(|row| goes(row)), None, "erased, and still there");
    }

    /// What a reader of the manifest finds now lies between two sets, with no span twice.
    async fn view_is_between(&self, least: &BTreeSet<Row>, most: &BTreeSet<Row>) {
        let sim = self.sim.copy();
        let catalogue = Catalogue::read(&sim).await.expect("the manifest can be read");
        let mut found = BTreeSet::new();
        for kept in catalogue.files() {
            for row in decoded(&read_file(&sim, &kept.file).await.expect("what counts is there")) {
                assert!(found.insert(row), "{row:?} counts twice");
            }
        }
        assert!(least.is_subset(&found), "lost: {:?}", least.difference(&found));
        assert!(found.is_subset(most), "never committed: {:?}", found.difference(most));
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Commit(spans) => self.commit(spans).await,
            Step::Compact(today) => self.compact(today).await,
            Step::Retain(first) => self.retain(first).await,
            Step::Erase(rest) => self.erase(rest).await,
            Step::Sweep => self.sweep().await,
            Step::Reopen => self.archive = None,
        }
        self.sim.demand(Law::Free);
        self.view_is_between(&self.due, &self.due).await;
    }

    /// Runs a script, and looks at what is left when nothing fails any more.
    async fn through(mut self, script: &[Step]) -> usize {
        for step in script {
            self.step(*step).await;
        }
        let calls = self.sim.calls();
        self.sim.heal();
        self.archive = None;
        self.open(None).await;
        // What came late came now.
        for _ in 0..3 {
            let _ = Catalogue::read(&*self.sim).await.expect("nothing fails any more");
        }
        self.archive = None;
        self.open(None).await;
        let due: Vec<Row> = self.due.iter().copied().collect();
        assert_eq!(self.sim.seen(), due, "by file names");
        let report = verify(&*self.sim, |_, _| {}).await.expect("nothing fails any more");
        assert!(report.is_right(), "{report:?}");
        let entries = self.sim.names().iter().filter(|name| name.starts_with("_manifest/")).count();
        assert!(entries <= 2 * 64, "{entries} entries");
        calls
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

/// Whatever a call of the place does, and whenever the process dies, no span is lost or counts twice, no reader of the manifest
/// sees anything but what was committed, and a commit never lets a reader of file names see a span twice.
#[test]
fn one_fault_at_every_call_loses_and_doubles_nothing() {
    let runtime = runtime();
    let mut runs = 0;
    for seed in 1..=2 {
        let script = script(seed, 16);
        let calls = runtime.block_on(Run::new(seed, Vec::new()).through(&script));
        for at in 0..calls {
            for how in HOWS {
                runtime.block_on(Run::new(seed, vec![(at, how)]).through(&script));
                runs += 1;
            }
        }
    }
    assert!(runs > 800, "{runs} runs");
}

/// The same with many faults in one run, one of them while another is mended.
#[test]
fn many_faults_lose_and_double_nothing() {
    let runtime = runtime();
    for seed in 100..220 {
        let mut dice = Dice(seed);
        let every = 3 + dice.roll(20);
        let fault = |at| (dice.roll(every) == 0).then(|| (at, HOWS[dice.roll(HOWS.len() as u64) as usize]));
        let faults = (0..600).filter_map(fault).collect();
        runtime.block_on(Run::new(seed, faults).through(&script(seed, 24)));
    }
}

/// Of two processes that archive one log, the older one is told, and nothing counts twice.
#[test]
fn a_second_writer_takes_over_and_the_first_is_told() {
    runtime().block_on(async {
        let sim = Arc::new(Sim::new(Vec::new()));
        let mut first = Archive::open(sim.clone(), LOG).await.expect("it opens");
        first.commit(0, 5, parts(0, 5), "a".into()).await.expect("nobody else is there");
        let mut second = Archive::open(sim.clone(), LOG).await.expect("it opens");
        assert_eq!((second.cursor(), second.book()), (Some(5), "a"));
        for _ in 0..2 {
            let told = first.commit(5, 9, parts(5, 9), "b".into()).await;
            assert!(matches!(told, Err(Error::Taken { .. })), "{told:?}");
        }
        second.commit(5, 7, parts(5, 7), "c".into()).await.expect("it is the writer");
        let third = Archive::open(sim.clone(), LOG).await.expect("it opens");
        assert_eq!((third.cursor(), third.book()), (Some(7), "c"));
        assert_eq!(sim.seen(), (0..7).map(row).collect::<Vec<Row>>());
        assert!(matches!(second.settle().await, Ok(())), "nothing was asked of it yet");
        let told = second.commit(7, 8, parts(7, 8), "d".into()).await;
        assert!(matches!(told, Err(Error::Taken { .. })), "{told:?}");
    });
}
