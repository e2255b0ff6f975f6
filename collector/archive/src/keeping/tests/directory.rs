//! A directory as a place.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::super::{Archive, Directory, Place, PlaceError, verify};
use super::{LOG, contract, parts, row};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_directory_keeps_the_contract() {
    let temp = tempfile::tempdir().expect("a directory");
    let place = Arc::new(Directory::new(&temp.path().join("data/archive")));
    contract::keep(place.clone()).await;
    contract::live(place).await;
}

#[tokio::test]
async fn files_are_private_and_nothing_hidden_is_left() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path().join("data/archive");
    let place = Directory::new(&root);
    place.put("date=2026-01-05/a.parquet", Bytes::from_static(b"one")).await.expect("it is made");
    place.put_new("_manifest/x/1.json", Bytes::from_static(b"1")).await.expect("there is none");
    let again = place.put_new("_manifest/x/1.json", Bytes::from_static(b"2")).await;
    assert!(matches!(again, Err(PlaceError::Exists { .. })), "{again:?}");
    for dir in ["", "_manifest", "_manifest/x", "date=2026-01-05"] {
        assert_eq!(mode(&root.join(dir)), 0o700, "{dir}");
    }
    for file in ["_manifest/x/1.json", "date=2026-01-05/a.parquet"] {
        assert_eq!(mode(&root.join(file)), 0o600, "{file}");
    }
    assert_eq!(place.list("").await.expect("it can be listed").len(), 2, "nothing hidden is left");
    place.delete(&["date=2026-01-05/a.parquet".to_owned()]).await.expect("it can be removed");
    assert!(!root.join("date=2026-01-05").exists(), "a day without files is none");
}

#[tokio::test]
async fn names_stay_below_the_directory() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path().join("archive");
    let place = Directory::new(&root);
    for name in ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/\0"] {
        assert!(place.put(name, Bytes::new()).await.is_err(), "{name}");
        assert!(place.get(name, 9).await.is_err(), "{name}");
        assert!(place.delete(&[name.to_owned()]).await.is_err(), "{name}");
    }
    assert!(!temp.path().join("x").exists());
    // What somebody else put there is listed as little as it is followed.
    fs::create_dir_all(root.join("a/b/c/d")).expect("it can be made");
    fs::write(root.join("a/b/c/d/deep"), b"").expect("it can be written");
    symlink("/", root.join("out")).expect("it can be made");
    assert_eq!(place.list("").await.expect("it can be listed"), []);
}

/// What a crash left half-written is listed, hidden from readers, and removed by the writer.
#[tokio::test]
async fn a_half_written_file_is_removed() {
    let temp = tempfile::tempdir().expect("a directory");
    let place: Arc<dyn Place> = Arc::new(Directory::new(temp.path()));
    let mut archive = Archive::open(place.clone(), LOG).await.expect("it opens");
    archive.commit(0, 30, parts(0, 30), "a".into()).await.expect("the disk is there");
    let name = archive.state().files.keys().next().expect("there is one").clone();
    let (dir, last) = name.split_once('/').expect("a day");
    let half = temp.path().join(dir).join(format!(".{}.tmp", last.replace("-000.", "-007.")));
    fs::write(&half, b"PAR1").expect("it can be written");
    let report = verify(&*place, |_, _| {}).await.expect("it can be read");
    assert_eq!(report.troubles.len(), 1, "{report:?}");
    drop(archive);
    let mut archive = Archive::open(place.clone(), LOG).await.expect("it opens");
    assert!(!half.exists());
    archive.commit(30, 50, parts(30, 50), "b".into()).await.expect("the disk is there");
    let report = verify(&*place, |_, _| {}).await.expect("it can be read");
    assert!(report.is_right() && report.rows == 50, "{report:?}");
    let mut rows = Vec::new();
    for file in archive.state().files.keys() {
        rows.extend(super::decoded(&place.get(file, 1 << 20).await.expect("it is there")));
    }
    rows.sort_unstable();
    assert_eq!(rows, (0..50).map(row).collect::<Vec<_>>());
}

/// The error of a place that cannot be written says what to do.
#[tokio::test]
async fn an_error_says_what_to_do() {
    let temp = tempfile::tempdir().expect("a directory");
    fs::write(temp.path().join("archive"), b"a file").expect("it can be written");
    let place = Directory::new(&temp.path().join("archive"));
    let error = place.put("x", Bytes::new()).await.expect_err("a file is no directory");
    assert!(error.to_string().contains("look at the disk"), "{error}");
}
