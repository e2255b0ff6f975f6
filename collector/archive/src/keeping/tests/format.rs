//! Version 1 of the manifest, as bytes that stay readable for ever: `collector/archive/tests/format/v1`.
//!
//! The log `aaaa` has entries of every kind since its first; of `bbbb` a whole entry stands before its last ones. To write a new
//! version's bytes beside these: `EMBERD_WRITE_FORMAT=DIRECTORY cargo test -p emberd-archive format`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::super::{Archive, Catalogue, Compaction, Directory, Place as _, Retention, Rewritten, Totals, verify};
use super::sim::Sim;
use super::{MONDAY, Row, contract, decoded, merged, part, parts};
use crate::part::Day;

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/v1")
}

/// All files below a directory, by name.
fn files(root: &Path) -> BTreeMap<String, Bytes> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(root).expect("it is below").to_str().expect("a plain name").to_owned();
                all.insert(name, fs::read(&path).expect("it can be read").into());
            }
        }
    }
    all
}

/// An archive in which everything has happened once.
async fn written() -> BTreeMap<String, Bytes> {
    let sim = Arc::new(Sim::new(Vec::new()));
    let writer = |digit: &str| digit.repeat(32);
    let mut first = Archive::open_as(sim.clone(), "aaaa", writer("1")).await.expect("nothing fails");
    let book = |to: u64| format!("{{\"done\":{to},\"why\":\"caf\u{e9} \\\" \u{1f525}\"}}\n");
    for (from, to) in [(5, 15), (15, 30), (30, 31)] {
        first.commit(from, to, parts(from, to), book(to)).await.expect("nothing fails");
    }
    first.commit(31, 40, Vec::new(), book(40)).await.expect("nothing fails");
    let when = Compaction { closed_files: 2, ..Compaction::default() };
    first.compact(Day(MONDAY + 9), &when, merged).await.expect("nothing fails").expect("there are two");
    let keep = Retention { days: Some(8), bytes: None };
    assert!(first.retain(Day(MONDAY + 9), &keep).await.expect("nothing fails").files > 0);
    let rewrite = |file: Bytes| {
        let rows: Vec<Row> = decoded(&file).into_iter().skip(1).collect();
        let parts = rows.first().map(|(offset, _)| part(super::day(*offset), &rows));
        Ok(Some(Rewritten { parts: parts.into_iter().collect(), erased: 1, changed: 0 }))
    };
    first.rewrite_where(&mut Totals::default(), |file| file.start_min.0 > 0, rewrite).await.expect("nothing fails");
    Archive::open_as(sim.clone(), "aaaa", writer("2")).await.expect("nothing fails");
    let mut second = Archive::open_as(sim.clone(), "bbbb", writer("3")).await.expect("nothing fails");
    second.whole_every = 4;
    for nth in 0..6 {
        second.commit(nth, nth + 1, parts(nth, nth + 1), String::new()).await.expect("nothing fails");
    }
    let names = sim.names();
    let mut all = BTreeMap::new();
    for name in names {
        let bytes = sim.get(&name, u64::MAX).await.expect("it is there");
        all.insert(name, bytes);
    }
    all
}

/// What is written today is, byte for byte, what was written when the version began.
#[tokio::test]
async fn version_1_is_written_as_it_was() {
    let written = written().await;
    if let Some(dir) = std::env::var_os("EMBERD_WRITE_FORMAT") {
        for (name, bytes) in &written {
            let path = Path::new(&dir).join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
            fs::write(path, bytes).expect("it can be written");
        }
    }
    let kept = files(&kept());
    assert_eq!(written.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>());
    for (name, bytes) in &written {
        assert!(kept[name] == bytes, "{name}: {}", String::from_utf8_lossy(bytes));
    }
}

/// What was written then is read, and gone on with.
#[tokio::test]
async fn version_1_is_read_for_ever() {
    let temp = tempfile::tempdir().expect("a directory");
    for (name, bytes) in files(&kept()) {
        let path = temp.path().join(&name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
        fs::write(path, bytes).expect("it can be written");
    }
    let place = Arc::new(Directory::new(temp.path()));
    let catalogue = Catalogue::read(&*place).await.expect("version 1 is read");
    let states = &catalogue.logs;
    assert_eq!(
        states.iter().map(|state| (state.log.as_str(), state.cursor)).collect::<Vec<_>>(),
        [("aaaa", Some(40)), ("bbbb", Some(6))]
    );
    assert_eq!(states[0].book, "{\"done\":40,\"why\":\"caf\u{e9} \\\" \u{1f525}\"}\n");
    let report = verify(&*place, |_, _| {}).await.expect("it can be read");
    assert!(report.is_right(), "{report:?}");
    let rows = contract::seen(&*place).await;
    assert_eq!((report.rows, report.rows), (rows.len() as u64, 19), "{rows:?}");
    let mut archive = Archive::open(place.clone(), "bbbb").await.expect("it is gone on with");
    archive.commit(6, 9, parts(6, 9), "on".into()).await.expect("it is gone on with");
    let archive = Archive::open(place.clone(), "bbbb").await.expect("it opens again");
    assert_eq!((archive.cursor(), archive.book(), archive.state().sums().0), (Some(9), "on", 9));
    assert!(verify(&*place, |_, _| {}).await.expect("it can be read").is_right());
}
