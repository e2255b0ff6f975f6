//! What every place does, whatever it is made of.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::super::place::Listed;
use super::super::{Archive, Catalogue, Compaction, Place, PlaceError, Retention, verify};
use super::{LOG, MONDAY, Row, decoded, merged, parts, row};
use crate::part::Day;

fn names(listed: Vec<Listed>) -> Vec<String> {
    listed.into_iter().map(|file| file.name).collect()
}

/// Puts, gets, lists and removes in an empty place, and leaves it empty.
pub(super) async fn keep(place: Arc<dyn Place>) {
    let (data, entry) = ("date=2026-01-05/a.parquet", "_manifest/x/1.json");
    assert_eq!(place.list("").await.expect("nothing is there yet"), []);
    assert_eq!(place.list("_manifest/x/").await.expect("nothing is there yet"), []);
    place.put(data, Bytes::from_static(b"one")).await.expect("it is made");
    place.put(data, Bytes::from_static(b"two2")).await.expect("it is replaced");
    place.put_new(entry, Bytes::from_static(b"1")).await.expect("there is none");
    for bytes in [&b"1"[..], b"2"] {
        let again = place.put_new(entry, Bytes::from_static(bytes)).await;
        assert!(matches!(&again, Err(PlaceError::Exists { name }) if name == entry), "{again:?}");
    }
    let all = place.list("").await.expect("it can be listed");
    assert_eq!(all.iter().map(|file| file.bytes).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(names(all), [entry, data]);
    assert_eq!(names(place.list("_manifest/").await.expect("it can be listed")), [entry]);
    assert_eq!(names(place.list("_manifest/x/").await.expect("it can be listed")), [entry]);
    assert_eq!(&place.get(entry, 10).await.expect("it is there")[..], b"1");
    assert_eq!(&place.get(data, 4).await.expect("it is there")[..], b"two2");
    assert_eq!(&place.get_range(data, 1..3).await.expect("it is there")[..], b"wo");
    assert_eq!(&place.get_range(data, 1..9).await.expect("it is there")[..], b"wo2");
    let long = place.get(data, 3).await;
    assert!(matches!(long, Err(PlaceError::Long { bytes_max: 3, .. })), "{long:?}");
    for missing in [place.get("date=2026-01-05/b.parquet", 2).await, place.get_range("_manifest/y", 0..1).await] {
        assert!(matches!(missing, Err(PlaceError::Missing { .. })), "{missing:?}");
    }
    place.delete(&[]).await.expect("nothing is to be done");
    let gone = [data.to_owned(), "date=2026-01-05/b.parquet".to_owned(), entry.to_owned()];
    place.delete(&gone).await.expect("what is not there is gone");
    assert_eq!(place.list("").await.expect("it can be listed"), []);
    place.put(data, Bytes::from_static(b"one")).await.expect("it is made again");
    place.delete(&gone).await.expect("it goes again");
}

/// The spans of all data files that lie there, by whoever goes by file names alone.
pub(super) async fn seen(place: &dyn Place) -> Vec<Row> {
    let mut rows = Vec::new();
    for file in place.list("").await.expect("it can be listed") {
        if file.name.ends_with(".parquet") {
            rows.extend(decoded(&place.get(&file.name, 1 << 20).await.expect("it is there")));
        }
    }
    rows.sort_unstable();
    rows
}

/// The life of an archive in an empty place: commits, another log, compaction, a new process, retention, verification.
pub(super) async fn live(place: Arc<dyn Place>) {
    let mut archive = Archive::open(place.clone(), LOG).await.expect("it opens");
    let mut other = Archive::open(place.clone(), "other").await.expect("it opens");
    for nth in 0..6 {
        let (from, to) = (nth * 10, nth * 10 + 10);
        archive.commit(from, to, parts(from, to), format!("up to {to}")).await.expect("it is committed");
    }
    other.commit(1_000, 1_010, parts(1_000, 1_010), "other".into()).await.expect("it is committed");
    let when = Compaction { closed_files: 2, ..Compaction::default() };
    let mut steps = 0;
    while archive.compact(Day(MONDAY + 9), &when, merged).await.expect("it is merged").is_some() {
        steps += 1;
    }
    assert_eq!(steps, 3);
    let all: BTreeSet<Row> = (0..60).chain(1_000..1_010).map(row).collect();
    assert_eq!(seen(&*place).await, all.iter().copied().collect::<Vec<Row>>());
    let mut archive = Archive::open(place.clone(), LOG).await.expect("it opens again");
    assert_eq!((archive.cursor(), archive.book()), (Some(60), "up to 60"));
    let catalogue = Catalogue::read(&*place).await.expect("it can be read");
    assert_eq!(catalogue.logs.iter().map(|state| state.cursor).collect::<Vec<_>>(), [Some(60), Some(1_010)]);
    assert_eq!(catalogue.files().iter().map(|kept| kept.file.rows).sum::<u64>(), 70);
    let report = verify(&*place, |_, _| {}).await.expect("it can be read");
    assert!(report.is_right() && report.rows == 70, "{report:?}");
    let keep = Retention { days: Some(0), bytes: None };
    let dropped = archive.retain(Day(MONDAY + 9), &keep).await.expect("it is dropped");
    assert_eq!((dropped.files, dropped.rows), (3, 60));
    assert_eq!(seen(&*place).await.len(), 10, "of the other log all is there");
}
