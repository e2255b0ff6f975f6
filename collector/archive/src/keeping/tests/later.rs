//! What is done with files later: compaction, retention, rewriting, verification; and how a manifest grows and shrinks.

use std::sync::Arc;

use bytes::Bytes;

use super::super::name::entry_name;
use super::super::place::BoxError;
use super::super::{
    Archive, Catalogue, Compaction, Error, Place as _, Retention, Rewritten, Totals, Trouble, read_file, verify,
};
use super::sim::Sim;
use super::{LOG, MONDAY, Row, decoded, part, parts, row};
use crate::part::{Day, Part};

async fn opened() -> (Arc<Sim>, Archive) {
    let sim = Arc::new(Sim::new(Vec::new()));
    let archive = Archive::open(sim.clone(), LOG).await.expect("nothing fails");
    (sim, archive)
}

/// A part of one day with spans of so many bytes in all, or a little more; each span says what day it is of.
fn sized(day: u32, bytes: usize) -> Part {
    let row = (1_000, u64::from(day));
    part(day, &vec![row; bytes.div_ceil(super::encoded(&[row]).len())])
}

/// Merges such files.
fn one(files: Vec<Bytes>) -> Result<Vec<Part>, BoxError> {
    let rows: Vec<Row> = files.iter().flat_map(|file| decoded(file)).collect();
    Ok(vec![part(rows[0].1 as u32, &rows)])
}

async fn commit(archive: &mut Archive, parts: Vec<Part>) {
    let from = archive.cursor().unwrap_or(0);
    archive.commit(from, from + 1, parts, String::new()).await.expect("nothing fails");
}

/// The lengths of a day's files, in the order of their names.
fn lengths(archive: &Archive, day: u32) -> Vec<u64> {
    archive.state().days().get(&day).into_iter().flatten().map(|(file, _)| file.bytes).collect()
}

const WHEN: Compaction = Compaction { bytes_target: 1_200, rows_target: 1_000, open_files: 3, closed_files: 2 };

#[tokio::test]
async fn days_that_are_over_are_compacted_first() {
    let (sim, mut archive) = opened().await;
    for _ in 0..3 {
        commit(&mut archive, vec![sized(MONDAY, 120), sized(MONDAY + 1, 120)]).await;
    }
    let today = Day(MONDAY + 1);
    let mut days = Vec::new();
    while let Some(done) = archive.compact(today, &WHEN, one).await.expect("nothing fails") {
        assert_eq!((done.files_before, done.files_after, done.bytes_before, done.bytes_after), (3, 1, 363, 363));
        days.push(done.day.0);
    }
    assert_eq!(days, [MONDAY, MONDAY + 1]);
    let names: Vec<String> = archive.state().files.keys().cloned().collect();
    let listed: Vec<String> = sim.names().into_iter().filter(|name| name.starts_with("date=")).collect();
    assert_eq!(names, listed, "the small files are gone");
    // Two more files are enough for the day that is over, and too few for the other.
    for _ in 0..2 {
        commit(&mut archive, vec![sized(MONDAY, 120), sized(MONDAY + 1, 120)]).await;
    }
    let done = archive.compact(today, &WHEN, one).await.expect("nothing fails");
    assert_eq!(done.map(|done| (done.day.0, done.files_before)), Some((MONDAY, 3)));
    assert_eq!(
        archive.compact(today, &WHEN, one).await.expect("nothing fails").map(|done| done.day.0),
        Some(MONDAY + 1)
    );
    assert_eq!(archive.compact(today, &WHEN, one).await.expect("nothing fails"), None);
}

/// No step makes a file of more than the target; what is large enough stays; a large file is not rewritten for each small one.
#[tokio::test]
async fn compaction_is_bounded() {
    let (_, mut archive) = opened().await;
    for bytes in [700, 400, 400, 400, 500, 300] {
        commit(&mut archive, vec![sized(MONDAY, bytes)]).await;
    }
    while archive.compact(Day(MONDAY + 9), &WHEN, one).await.expect("nothing fails").is_some() {}
    let mut left = lengths(&archive, MONDAY);
    left.sort_unstable();
    assert!(left.iter().all(|bytes| *bytes <= 1_200), "{left:?}");
    assert_eq!(left.len(), 4, "{left:?}");
    let (_, mut archive) = opened().await;
    for bytes in [500, 60] {
        commit(&mut archive, vec![sized(MONDAY, bytes)]).await;
    }
    assert_eq!(archive.compact(Day(MONDAY + 9), &WHEN, one).await.expect("nothing fails"), None);
}

/// Every file that comes to a day that is over, for ever: a byte is rewritten some few times, not each time.
#[tokio::test]
async fn a_byte_is_not_rewritten_with_each_file_that_comes() {
    let (_, mut archive) = opened().await;
    let when = Compaction { bytes_target: 1 << 20, rows_target: 1 << 20, open_files: 3, closed_files: 2 };
    let (mut came, mut rewritten) = (0, 0);
    for _ in 0..200 {
        commit(&mut archive, vec![sized(MONDAY, 100)]).await;
        came += 100;
        while let Some(done) = archive.compact(Day(MONDAY + 9), &when, one).await.expect("nothing fails") {
            rewritten += done.bytes_before;
        }
    }
    assert!(rewritten < 8 * came, "{rewritten} bytes were rewritten for {came} that came");
    assert!(lengths(&archive, MONDAY).len() <= 8);
}

/// What comes of a merge must have the spans that went into it, and be of their day.
#[tokio::test]
async fn a_merge_that_loses_spans_changes_nothing() {
    let (sim, mut archive) = opened().await;
    for _ in 0..3 {
        commit(&mut archive, vec![sized(MONDAY, 120)]).await;
    }
    let before = (archive.state().clone(), sim.names());
    let today = Day(MONDAY + 9);
    let lost = archive.compact(today, &WHEN, |_| Ok(vec![sized(MONDAY, 120)])).await;
    assert!(matches!(lost, Err(Error::Count { .. })), "{lost:?}");
    let moved = archive.compact(today, &WHEN, |_| Ok(vec![sized(MONDAY + 1, 360)])).await;
    assert!(matches!(moved, Err(Error::Count { .. })), "{moved:?}");
    let failed = archive.compact(today, &WHEN, |_| Err("no".into())).await;
    assert!(matches!(failed, Err(Error::Rows { .. })), "{failed:?}");
    let panicked = archive.compact(today, &WHEN, |_| panic!("a fault of the encoder")).await;
    assert!(matches!(panicked, Err(Error::Rows { .. })), "{panicked:?}");
    let wrong = |_: Bytes| Ok(Some(Rewritten { parts: vec![sized(MONDAY, 100)], erased: 2, changed: 0 }));
    let mut totals = Totals::default();
    let wrong = archive.rewrite_where(&mut totals, |_| true, wrong).await;
    assert!(matches!(wrong, Err(Error::Count { .. })), "{wrong:?}");
    assert_eq!((archive.state().clone(), sim.names(), totals.erased), (before.0, before.1, 0));
}

/// A damaged file is told once, and then left out, so that it does not keep others from being merged.
#[tokio::test]
async fn a_damaged_file_is_left_out_of_compaction() {
    let (sim, mut archive) = opened().await;
    for _ in 0..4 {
        commit(&mut archive, vec![sized(MONDAY, 120)]).await;
    }
    let name = archive.state().files.keys().nth(1).expect("there are four").clone();
    sim.edit(|files| drop(files.insert(name.clone(), Bytes::from(vec![b'x'; 121]))));
    let told = archive.compact(Day(MONDAY + 9), &WHEN, one).await;
    assert!(matches!(&told, Err(Error::File { name: told, .. }) if *told == name), "{told:?}");
    // Those behind it; the one before it has no neighbour.
    let done = archive.compact(Day(MONDAY + 9), &WHEN, one).await.expect("the others are right");
    assert_eq!(done.map(|done| done.files_before), Some(2));
    assert!(archive.state().files.contains_key(&name) && sim.names().contains(&name), "it stays");
    let erasing = archive.rewrite_where(&mut Totals::default(), |_| true, |_| Ok(None)).await;
    assert!(matches!(erasing, Err(Error::File { .. })), "nobody can say what is in it");
}

#[tokio::test]
async fn the_oldest_days_go_first() {
    let (sim, mut archive) = opened().await;
    for nth in 0..12 {
        commit(&mut archive, vec![sized(MONDAY + nth % 4, 100)]).await;
    }
    let file = sized(MONDAY, 100).file.len() as u64;
    let today = Day(MONDAY + 3);
    let keep = |days, bytes| Retention { days, bytes };
    let nothing = archive.retain(today, &keep(None, None)).await.expect("nothing fails");
    assert_eq!(nothing.files, 0);
    let old = archive.retain(today, &keep(Some(2), None)).await.expect("nothing fails");
    assert_eq!((old.files, old.bytes), (3, 3 * file));
    let large = archive.retain(today, &keep(Some(2), Some(5 * file))).await.expect("nothing fails");
    assert_eq!(large.files, 6, "a day that is over goes whole; its third file alone was one too few");
    let today_too = archive.retain(today, &keep(None, Some(file))).await.expect("nothing fails");
    assert_eq!(today_too.files, 2);
    let left: Vec<String> = sim.names().into_iter().filter(|name| name.starts_with("date=")).collect();
    assert_eq!(left, archive.state().files.keys().cloned().collect::<Vec<_>>());
    assert!(left[0].contains("-00000000000000000011-"), "the last one of today: {left:?}");
    assert_eq!(archive.cursor(), Some(12));
}

#[tokio::test]
async fn what_is_erased_is_counted_and_gone() {
    let (sim, mut archive) = opened().await;
    archive.commit(0, 40, parts(0, 40), "b".into()).await.expect("nothing fails");
    let goes = |(offset, _): &Row| offset % 4 == 1;
    let rewrite = move |file: Bytes| {
        let (gone, kept): (Vec<Row>, Vec<Row>) = decoded(&file).into_iter().partition(goes);
        let parts = vec![part(super::day(kept[0].0), &kept)];
        Ok((!gone.is_empty()).then_some(Rewritten { parts, erased: gone.len() as u64, changed: 0 }))
    };
    let mut totals = Totals::default();
    archive.rewrite_where(&mut totals, |_| true, rewrite).await.expect("nothing fails");
    assert_eq!((totals.files_read, totals.files_rewritten, totals.erased), (3, 3, 10));
    assert_eq!(sim.seen(), (0..40).map(row).filter(|row| !goes(row)).collect::<Vec<Row>>());
    assert_eq!((archive.cursor(), archive.book()), (Some(40), "b"));
    let mut again = Totals::default();
    archive.rewrite_where(&mut again, |_| true, rewrite).await.expect("nothing fails");
    assert_eq!((again.files_read, again.files_rewritten, again.erased), (3, 0, 0));
}

#[tokio::test]
async fn verification_tells_each_trouble() {
    let (sim, mut archive) = opened().await;
    let mut other = Archive::open(sim.clone(), "other").await.expect("nothing fails");
    archive.commit(0, 40, parts(0, 40), "b".into()).await.expect("nothing fails");
    other.commit(0, 9, parts(0, 9), "b".into()).await.expect("nothing fails");
    let mut told = 0;
    let report = verify(&*sim, |_, _| told += 1).await.expect("nothing fails");
    assert!(report.is_right(), "{report:?}");
    assert_eq!((report.logs, report.rows, report.files, report.files_right), (2, 49, told, told));

    let names: Vec<String> = archive.state().files.keys().cloned().collect();
    let stranger = "date=2026-01-05/notes.parquet";
    sim.edit(|files| {
        files.remove(&names[0]);
        files.insert(names[1].clone(), Bytes::from_static(b"short"));
        let mut bytes = files[&names[2]].to_vec();
        bytes[3] ^= 1;
        files.insert(names[2].clone(), bytes.into());
        files.insert(stranger.to_owned(), Bytes::new());
        let entry = entry_name("other", 0);
        files.insert(entry, Bytes::from_static(b"{}"));
    });
    let report = verify(&*sim, |_, _| {}).await.expect("nothing fails");
    let trouble = |name: &str| report.troubles.iter().find(|(of, _)| of == name).map(|(_, trouble)| trouble);
    assert!(matches!(trouble(&names[0]), Some(Trouble::Missing)));
    assert!(matches!(trouble(&names[1]), Some(Trouble::Length { is: 5, .. })));
    assert!(matches!(trouble(&names[2]), Some(Trouble::Damaged)));
    assert!(matches!(trouble(stranger), Some(Trouble::Unknown)));
    assert!(matches!(trouble("_manifest/other/"), Some(Trouble::Manifest(Error::Damaged { .. }))));
    assert_eq!(report.troubles.len(), 5, "of a log that cannot be read nothing else is said: {report:?}");
    let reading = Archive::open(sim.clone(), "other").await;
    assert!(matches!(reading, Err(Error::Damaged { .. })), "{reading:?}");
}

/// What a process leaves that died is removed at the next opening; what is of another log, or of nobody, stays.
#[tokio::test]
async fn only_what_is_ours_is_removed() {
    let (sim, mut archive) = opened().await;
    commit(&mut archive, vec![sized(MONDAY, 100)]).await;
    let ours = archive.state().files.keys().next().expect("there is one").clone();
    let orphan = ours.replace("-0000000001-", "-0000000099-");
    let half = orphan.replace(LOG, &format!(".{LOG}")) + ".tmp";
    let strangers = ["date=2026-01-05/notes.parquet".to_owned(), orphan.replace(LOG, "another"), "x/y".to_owned()];
    sim.edit(|files| {
        for name in strangers.iter().chain([&orphan, &half]) {
            files.insert(name.clone(), Bytes::from_static(b"1 2\n"));
        }
    });
    let mut archive = Archive::open(sim.clone(), LOG).await.expect("nothing fails");
    let names = sim.names();
    assert!(strangers.iter().chain([&ours]).all(|name| names.contains(name)), "{names:?}");
    assert!(!names.contains(&orphan) && !names.contains(&half), "{names:?}");
    assert_eq!(archive.state().files.len(), 1);
    // A put of the dead process that comes only now.
    sim.edit(|files| drop(files.insert(orphan.clone(), Bytes::from_static(b"1 2\n"))));
    assert_eq!(archive.sweep().await.expect("nothing fails"), 1);
    assert_eq!(archive.sweep().await.expect("nothing fails"), 0);
    assert!(!sim.names().contains(&orphan) && sim.names().contains(&ours));
}

/// A sweep after a commit whose answer was lost: its files count, and stay.
#[tokio::test]
async fn a_sweep_makes_sure_first() {
    // Opening makes four calls; then come three files, and the entry.
    for call in 4..8 {
        let sim = Arc::new(Sim::new(vec![(call, super::sim::How::Lost)]));
        let mut archive = Archive::open(sim.clone(), LOG).await.expect("the fault comes later");
        let failed = archive.commit(0, 40, parts(0, 40), "b".into()).await.is_err();
        archive.sweep().await.expect("nothing fails any more");
        let due = if failed && archive.cursor().is_none() { 0 } else { 40 };
        assert_eq!(sim.seen().len(), due, "call {call}");
        assert!(verify(&*sim, |_, _| {}).await.expect("nothing fails any more").is_right());
        assert_eq!(archive.cursor(), (due > 0).then_some(40));
    }
}

/// Entries go when a whole one says it all; reading finds the same.
#[tokio::test]
async fn a_manifest_stays_short() {
    let (sim, mut archive) = opened().await;
    for nth in 0..300 {
        commit(&mut archive, vec![part(MONDAY, &[row(nth)])]).await;
    }
    let entries = sim.names().into_iter().filter(|name| name.starts_with("_manifest/")).count();
    assert!(entries <= 65, "{entries}");
    let read = Catalogue::read(&*sim).await.expect("nothing fails");
    assert_eq!(read.files().len(), 300);
    assert_eq!(read.logs[0].files, archive.state().files);
    // One entry that is missing, or that is another's, and nothing is read: what counts is not guessed.
    let last = sim.names().into_iter().rfind(|name| name.starts_with("_manifest/")).expect("there are some");
    let middle = entry_name(LOG, 280);
    assert!(last > middle);
    let cut = sim.copy();
    cut.edit(|files| drop(files.remove(&middle)));
    let damaged = Catalogue::read(&cut).await;
    assert!(matches!(&damaged, Err(Error::Damaged { name, .. }) if *name == middle), "{damaged:?}");
}

#[tokio::test]
async fn commits_go_on_where_the_last_one_ended() {
    let (sim, mut archive) = opened().await;
    assert_eq!((archive.cursor(), archive.book()), (None, ""));
    archive.commit(100, 110, parts(100, 110), "a".into()).await.expect("the first begins anywhere");
    for (from, to) in [(105, 115), (111, 120), (100, 109)] {
        let other = archive.commit(from, to, parts(from, to), "x".into()).await;
        assert!(matches!(other, Err(Error::Cursor { cursor: 110, .. })), "{other:?}");
    }
    archive.commit(100, 110, parts(100, 110), "a".into()).await.expect("it was done already");
    archive.commit(110, 115, Vec::new(), "b".into()).await.expect("spans may be passed without a file");
    let nothing = archive.commit(115, 115, Vec::new(), "c".into()).await;
    assert!(matches!(nothing, Err(Error::Bound { .. })), "{nothing:?}");
    assert_eq!((archive.cursor(), archive.book()), (Some(115), "b"));
    assert_eq!(sim.seen(), (100..110).map(row).collect::<Vec<Row>>());
    let log = Archive::open(sim, "no-name").await;
    assert!(matches!(log, Err(Error::Log { .. })), "{log:?}");
}

/// A reader of the manifest reads files one by one; one that was compacted away meanwhile is said to be missing.
#[tokio::test]
async fn a_reader_hears_that_a_file_went() {
    let (sim, mut archive) = opened().await;
    for _ in 0..2 {
        commit(&mut archive, vec![sized(MONDAY, 100)]).await;
    }
    let before = Catalogue::read(&*sim).await.expect("nothing fails").files();
    archive.compact(Day(MONDAY + 9), &WHEN, one).await.expect("nothing fails").expect("there are two");
    let gone = read_file(&*sim, &before[0].file).await;
    assert!(matches!(gone, Err(Error::Place(super::super::PlaceError::Missing { .. }))), "{gone:?}");
    assert!(!Catalogue::counts(&*sim, &before[0].name).await.expect("nothing fails"));
    let after = Catalogue::read(&*sim).await.expect("nothing fails").files();
    assert_eq!(after[0].file.rows, before.iter().map(|kept| kept.file.rows).sum::<u64>());
    assert_eq!(sim.get(&after[0].file.name, u64::MAX).await.expect("it is there").len() as u64, after[0].file.bytes);
}
