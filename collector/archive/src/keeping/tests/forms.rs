//! Names, URLs, and entries as bytes.

use emberd_model::UnixNanos;
use proptest::prelude::*;

use super::super::manifest::{Entry, File, Kind, VERSION};
use super::super::name::{DataName, day_of, day_text, entry_name, entry_of, is_of};
use super::super::place::{Url, UrlError};
use super::super::state::State;
use super::super::{Error, S3Settings};
use super::{LOG, MONDAY};
use crate::part::Day;

#[test]
fn days_are_dates() {
    for (day, text) in [(0, "1970-01-01"), (MONDAY, "2026-01-05"), (11_016, "2000-02-29"), (2_932_896, "9999-12-31")] {
        assert_eq!(day_text(Day(day)).as_deref(), Some(text));
        assert_eq!(day_of(text), Some(Day(day)));
    }
    assert_eq!(day_text(Day(2_932_897)), None);
    assert_eq!(day_text(Day(u32::MAX)), None);
    for text in ["", "1969-12-31", "2026-02-29", "2026-1-05", "2026-01-05-", "+026-01-05", "2026-00-05", "10000-01-01"]
    {
        assert_eq!(day_of(text), None, "{text}");
    }
}

#[test]
fn names_are_as_they_are_documented() {
    let name = DataName { day: Day(MONDAY), log: LOG.to_owned(), from: 7, to: 1_000, seq: 42, part: 3 };
    let text = "date=2026-01-05/0198c0ffee0042-00000000000000000007-00000000000000001000-0000000042-003.parquet";
    assert_eq!(name.text().as_deref(), Some(text));
    assert_eq!(DataName::parse(text), Some(name));
    assert_eq!(entry_name(LOG, 42), "_manifest/0198c0ffee0042/0000000042.json");
    assert_eq!(entry_of("_manifest/0198c0ffee0042/0000000042.json"), Some((LOG, 42)));
    let hidden = text.replace(LOG, &format!(".{LOG}")) + ".tmp";
    for (name, of) in [(text, LOG), (&hidden, LOG), ("_manifest/0198c0ffee0042/.0000000042.json.tmp", LOG)] {
        assert!(is_of(name, of) && !is_of(name, "other"), "{name}");
    }
    for (what, with) in [
        ("date=", "day="),
        (LOG, "UPPER"),
        (LOG, ""),
        ("00000000000000001000", "00000000000000000007"),
        ("00000000000000001000", "1000"),
        ("-003", ""),
        ("-003", "-003-004"),
        (".parquet", ".parquet.tmp"),
        ("00000000000000001000", "99999999999999999999"),
        ("2026-01-05/", "2026-01-05/x/"),
    ] {
        assert_eq!(DataName::parse(&text.replace(what, with)), None, "{what} -> {with}");
        assert!(!is_of(&text.replace(what, with), LOG) || with.ends_with(".tmp"), "{what} -> {with}");
    }
}

#[test]
fn urls_say_where_an_archive_is() {
    let bucket = |bucket: &str, prefix: &str| Url::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
    assert_eq!("file".parse(), Ok(Url::Directory));
    assert_eq!("s3://spans".parse(), Ok(bucket("spans", "")));
    assert_eq!("s3://spans/".parse(), Ok(bucket("spans", "")));
    assert_eq!("s3://my.spans-1/prod/a=b/".parse(), Ok(bucket("my.spans-1", "prod/a=b")));
    for (text, error) in [
        ("", UrlError::Form),
        ("/var/lib", UrlError::Form),
        ("https://spans", UrlError::Form),
        ("s3://", UrlError::Bucket),
        ("s3://ab/x", UrlError::Bucket),
        ("s3://Spans/x", UrlError::Bucket),
        ("s3://spans//x", UrlError::Prefix),
        ("s3://spans/../x", UrlError::Prefix),
        ("s3://spans/a b", UrlError::Prefix),
    ] {
        assert_eq!(text.parse::<Url>(), Err(error), "{text}");
    }
    let shown = format!("{:?}", S3Settings { keys: Some(("id".into(), "s3cr3t".into())), ..S3Settings::default() });
    assert!(!shown.contains("s3cr3t"), "{shown}");
}

pub(super) fn file(from: u64, to: u64, seq: u64, part: u32) -> File {
    let name = DataName { day: Day(MONDAY), log: LOG.to_owned(), from, to, seq, part };
    File {
        name: name.text().expect("a day with a name"),
        rows: to - from,
        bytes: 17 * (to - from),
        sha256: [seq as u8; 32],
        start_min: UnixNanos(1),
        start_max: UnixNanos(u64::MAX),
    }
}

pub(super) fn entry() -> Entry {
    Entry {
        emberd_manifest: VERSION,
        log: LOG.to_owned(),
        seq: 9,
        kind: Kind::Commit,
        writer: "0123456789abcdef0123456789abcdef".to_owned(),
        previous: Some([8; 32]),
        from: Some(10),
        to: Some(20),
        whole: false,
        added: vec![file(10, 20, 9, 0), file(10, 20, 9, 1)],
        removed: vec![file(0, 10, 3, 0).name],
        book: "{\"done\":20}\n\u{1f525}".to_owned(),
    }
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let name = entry_name(LOG, 9);
    let opened =
        Entry { kind: Kind::Opened, from: None, to: None, previous: None, whole: true, removed: vec![], ..entry() };
    for entry in [entry(), opened] {
        let (bytes, sum) = entry.encode().expect("it breaks no bound");
        assert_eq!(Entry::decode(&name, &bytes).expect("it was just written"), (entry, sum));
        let json: serde_json::Value = serde_json::from_slice(&bytes).expect("an entry is JSON");
        assert_eq!(json["emberd_manifest"], 1);
        assert!(bytes.ends_with(b"\"}\n"));
    }
}

/// An entry that breaks a rule is not written; and if somebody wrote it, with the right check sum, it is not taken.
#[test]
fn an_entry_that_breaks_a_rule_is_refused() {
    let other = |name: &str| name.replace(LOG, "another");
    let edits: Vec<fn(&mut Entry)> = vec![
        |entry| entry.log = "../x".into(),
        |entry| entry.seq = 10_000_000_000,
        |entry| entry.writer = "me".into(),
        |entry| entry.previous = None,
        |entry| entry.whole = true,
        |entry| entry.to = Some(9),
        |entry| entry.to = Some(10),
        |entry| entry.to = None,
        |entry| entry.kind = Kind::Rewrite,
        |entry| entry.book = "x".repeat((1 << 20) + 1),
        |entry| entry.added[0].start_max = UnixNanos(0),
        |entry| entry.added[0].name = "date=2026-01-05/x.parquet".into(),
        |entry| entry.added[0].name = entry.added[0].name.replace("-0000000009-", "-0000000010-"),
    ];
    for (nth, edit) in edits.into_iter().enumerate() {
        let mut broken = entry();
        edit(&mut broken);
        assert!(matches!(broken.encode(), Err(Error::Bound { .. })), "edit {nth}");
    }
    let mut foreign = entry();
    foreign.removed[0] = other(&foreign.removed[0]);
    assert!(matches!(foreign.encode(), Err(Error::Bound { .. })));
}

#[test]
fn a_later_version_is_said_to_be_one() {
    let later = Entry { emberd_manifest: 2, ..entry() };
    let (bytes, _) = later.encode().expect("it breaks no bound");
    let name = entry_name(LOG, 9);
    assert!(matches!(Entry::decode(&name, &bytes), Err(Error::Version { version: 2, .. })));
}

/// An entry under another one's name, or cut, or with any byte changed, is no entry.
#[test]
fn a_changed_entry_is_refused() {
    let (bytes, _) = entry().encode().expect("it breaks no bound");
    let name = entry_name(LOG, 9);
    let refused = |name: &str, bytes: &[u8]| matches!(Entry::decode(name, bytes), Err(Error::Damaged { .. }));
    assert!(refused(&entry_name(LOG, 8), &bytes) && refused(&entry_name("other", 9), &bytes));
    for at in 0..bytes.len() {
        assert!(refused(&name, &bytes[..at]), "cut at {at}");
        let mut changed = bytes.to_vec();
        changed[at] ^= 1 << (at % 8);
        assert!(refused(&name, &changed), "changed at {at}");
    }
    assert!(refused(&name, &[&bytes[..], b"\n"].concat()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Any text between the right braces, with the right check sum, is refused or taken, without a panic.
    #[test]
    fn any_body_is_read_without_a_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..9), 0..6)
    ) {
        use sha2::Digest as _;
        let (bytes, _) = entry().encode().expect("it breaks no bound");
        let tail = bytes.len() - 77;
        let mut body = bytes[..tail].to_vec();
        for (at, byte, cut) in edits {
            let at = at.index(body.len());
            let end = (at + cut).min(body.len());
            body.splice(at..end, [byte]);
        }
        let sum: [u8; 32] = sha2::Sha256::digest(&body).into();
        body.extend_from_slice(format!(",\"sha256\":\"{}\"}}\n", super::super::manifest::hex(&sum)).as_bytes());
        if let Ok((entry, sum)) = Entry::decode(&entry_name(LOG, 9), &body) {
            let mut state = State::empty(LOG);
            let _ = state.take(entry, sum);
        }
    }
}
