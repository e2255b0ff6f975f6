use emberd_log::sim::{Call, Fault, SimDisk, Survives};
use emberd_model::ledger::{Account, Fate, Hour, Reason};
use proptest::prelude::*;

use super::*;

fn dir() -> &'static Path {
    Path::new("/cursors")
}

fn step(from: Offset, spans: u64, fate: Fate) -> Step {
    let mut tally = Tally::default();
    tally.add(&Account::new(Hour(490_000), "shop"), fate, spans as i64);
    let cursor = from.plus(spans);
    Step { cursor, sent: cursor, at: UnixNanos(cursor.0 * 1_000_000_000), tally, ..Step::default() }
}

fn open(disk: &SimDisk) -> BookFile {
    BookFile::open(Arc::new(disk.clone()), dir(), "sink", Offset(7)).unwrap()
}

/// Whatever a power cut leaves, cursor and book stand at one of the steps that were begun, none before the last that was done.
#[test]
fn cursor_and_book_move_together_through_power_cuts() {
    let disk = SimDisk::new();
    disk.record();
    let mut file = open(&disk);
    let mut acked = vec![(disk.calls(), file.stored().book.clone())];
    for n in 0..40u64 {
        let fate = if n.is_multiple_of(3) { Fate::Shed(Reason::new("share")) } else { Fate::Done };
        file.step(&step(file.stored().book.cursor(), 1 + n, fate), Vec::new).unwrap();
        acked.push((disk.calls(), file.stored().book.clone()));
    }
    for moment in disk.moments() {
        let ways = [Survives::Nothing, Survives::Everything, Survives::Some { unit: 512, seed: moment.calls }];
        for way in ways.into_iter().chain((0..200).step_by(9).map(|bytes| Survives::Torn { bytes })) {
            let crashed = moment.crash(way);
            let found = BookFile::open(Arc::new(crashed), dir(), "sink", Offset(7)).unwrap();
            let book = &found.stored().book;
            let last = acked.iter().rposition(|(calls, _)| *calls <= moment.calls);
            assert!(book.is_balanced());
            let at = acked.iter().position(|(_, known)| known == book).expect("a book that never was");
            assert!(last.is_none_or(|last| at >= last), "call {}, {way:?}: back to {at}", moment.calls);
        }
    }
}

/// A disk that fails once costs nothing: the step is tried again, and counted once.
#[test]
fn a_step_that_failed_is_taken_once() {
    for call in 0..12 {
        let disk = SimDisk::new();
        let mut file = open(&disk);
        disk.fail(Call::Change, call, Fault::Full, false);
        let wanted = step(Offset(7), 5, Fate::Done);
        while file.step(&wanted, Vec::new).is_err() {}
        assert_eq!((file.stored().book.spans(), file.stored().book.cursor()), (5, Offset(12)));
        drop(file);
        disk.heal();
        let again = open(&disk);
        assert!(again.stored().book.is_balanced() && again.stored().book.spans() == 5);
    }
}

/// The old cursor file is where a consumer begins that has no book yet; its first book says nothing of what was before.
#[test]
fn a_consumer_of_an_older_emberd_goes_on_where_it_was() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    CursorFile::open_on(disk.clone(), dir(), "sink").unwrap().store(Offset(1_000)).unwrap();
    assert_eq!(read(disk.clone(), dir(), "sink").unwrap().unwrap().book, Book::begin(Offset(1_000)));
    let file = BookFile::open(disk.clone(), dir(), "sink", Offset(7)).unwrap();
    assert_eq!(file.stored().book, Book::begin(Offset(1_000)));
    assert!(read(disk, dir(), "another").unwrap().is_none());
}

/// What is damaged is said, and makes way for a new beginning; it is kept beside it.
#[test]
fn a_damaged_journal_makes_way() {
    let disk = SimDisk::new();
    let mut file = open(&disk);
    for _ in 0..3 {
        file.step(&step(file.stored().book.cursor(), 1, Fate::Done), Vec::new).unwrap();
    }
    drop(file);
    disk.damage(&dir().join("sink.journal"), |bytes| bytes[40] ^= 1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let error = BookFile::open(shared.clone(), dir(), "sink", Offset(7)).unwrap_err();
    assert!(error.is_damage(), "{error:?}");
    let anew = BookFile::begin_anew(shared, dir(), "sink", Offset(2)).unwrap();
    assert_eq!(anew.stored().book, Book::begin(Offset(2)));
    assert!(disk.bytes(&dir().join("sink.journal.damaged")).is_some());
}

/// Decisions are found again in order, across snapshots; a released item until the next step.
#[test]
fn decisions_and_a_released_item_are_found_again() {
    let disk = SimDisk::new();
    let mut file = open(&disk);
    let with = |decisions: &[u8], released: Option<&str>| Step {
        decisions: decisions.to_vec(),
        released: released.map(str::to_owned),
        ..step(Offset(7), 0, Fate::Done)
    };
    file.step(&with(b"one", None), Vec::new).unwrap();
    file.step(&with(b"", Some("item")), Vec::new).unwrap();
    let mut again = open(&disk);
    assert_eq!(again.stored().released.as_deref(), Some("item"));
    assert_eq!(again.decisions(), [b"one".to_vec()]);
    again.uncertain = true;
    again.step(&with(b"two", None), || b"one and two".to_vec()).unwrap();
    again.step(&with(b"three", None), Vec::new).unwrap();
    let mut last = open(&disk);
    assert_eq!(
        (last.decisions(), last.stored().released.clone()),
        (vec![b"one and two".to_vec(), b"three".to_vec()], None)
    );
}

proptest! {
    #[test]
    fn noise_is_no_book(noise: Vec<u8>) {
        let _ = Stored::decode(&noise);
        let _ = Step::decode(&noise);
        prop_assert!(Stored::of(&[noise], "sink").is_err());
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Snapshot and step in the bytes of their first form, as records of a journal: they are read for ever, and what is written is still the
/// same. (The journal's own bytes are kept by `emberd-log`.)
#[test]
fn the_first_form_is_read_and_written_for_ever() {
    const BOOK: &str = "010e0c02000473686f700190f41d0100000a";
    const STEP: &str = "020f000000000000000f000000000000000000ca67a7fc7a1804000000000000006974656d0000000000000000020573686172650473686f\
        700191f41d01030006";
    let moment: Vec<u8> =
        [1_764_000_000_000_000_000_u64, 13, 12].iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut snapshot = vec![1];
    for part in [&hex(BOOK)[..], &moment, b"", b"kept"] {
        snapshot.extend_from_slice(&(part.len() as u64).to_le_bytes());
        snapshot.extend_from_slice(part);
    }
    let disk = SimDisk::new();
    let (mut journal, _) = Journal::open(Arc::new(disk.clone()), dir(), "sink").unwrap();
    journal.replace(&snapshot).unwrap();
    let mut first = open(&disk);
    let account = |hour| Account::new(Hour(hour), "shop");
    let lines = |file: &BookFile| -> Vec<_> {
        file.stored().book.lines().map(|(account, fate, spans)| (account.clone(), fate.clone(), spans)).collect()
    };
    assert_eq!((first.stored().book.origin(), first.stored().book.cursor()), (7, Offset(12)));
    assert_eq!(lines(&first), [(account(490_000), Fate::Done, 5)]);
    assert_eq!(first.decisions(), [b"kept".to_vec()]);
    assert_eq!(first.stored().encode(b"kept"), snapshot);
    drop(first);

    let (mut journal, _) = Journal::open(Arc::new(disk.clone()), dir(), "sink").unwrap();
    journal.append(&hex(STEP)).unwrap();
    let second = open(&disk);
    assert_eq!((second.stored().book.cursor(), second.stored().released.as_deref()), (Offset(15), Some("item")));
    let shed = Fate::Shed(Reason::new("share"));
    assert_eq!(lines(&second), [(account(490_000), Fate::Done, 5), (account(490_001), shed.clone(), 3)]);
    assert!(second.stored().book.is_balanced());
    let mut tally = Tally::default();
    tally.add(&account(490_001), shed, 3);
    let (cursor, at) = (Offset(15), UnixNanos(1_764_000_000_000_000_000));
    let step = Step { cursor, sent: cursor, at, tally, released: Some("item".into()), decisions: Vec::new() };
    assert_eq!(step.encode(), hex(STEP));
}

/// An item in quarantine as the first emberd wrote it, and as today's does: both are read for ever.
#[test]
fn the_first_forms_of_an_item_are_read_for_ever() {
    use crate::quarantine::{Booked, Item};

    const FIRST: &str = r#"{"consumer":"phoenix","offset":5,"spans":1,"traces":["t"],"span_ids":["aa"],"reason":"refused","answer":"no","at_micros":7}"#;
    const SECOND: &str = r#"{"consumer":"phoenix","offset":5,"spans":1,"traces":["t"],"span_ids":["aa"],"reason":"refused","answer":"no","at_micros":7,"accounts":[{"hour":490000,"project":"shop","spans":1}],"retries":2}"#;
    let first = Item {
        consumer: "phoenix".into(),
        offset: 5,
        spans: 1,
        traces: vec!["t".into()],
        span_ids: vec!["aa".into()],
        reason: "refused".into(),
        answer: "no".into(),
        at_micros: 7,
        accounts: Vec::new(),
        retries: 0,
    };
    let accounts = vec![Booked { hour: 490_000, project: "shop".into(), spans: 1 }];
    let second = Item { accounts, retries: 2, ..first.clone() };
    assert_eq!(serde_json::from_str::<Item>(FIRST).unwrap(), first);
    assert_eq!(serde_json::from_str::<Item>(SECOND).unwrap(), second);
    assert_eq!(serde_json::to_string(&second).unwrap(), SECOND);
}
