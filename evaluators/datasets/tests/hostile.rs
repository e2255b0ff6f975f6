//! Bytes that nobody meant: no reader panics, and a file that was cut gives whole rows or an error that says where.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]

use bytes::Bytes;
use emberd_evaluators_datasets::{Error, Example, Format, Import, Limits, Source, Type, export, import};
use proptest::prelude::*;
use serde_json::json;

fn how(r#type: Type, format: Format) -> Import {
    let limits = Limits { file_bytes: 1 << 20, row_bytes: 1 << 18, rows: 10_000, total_bytes: 1 << 21, faults: 10 };
    Import { limits, ..Import::new(r#type, format) }
}

fn examples() -> Vec<Example> {
    let metadata = json!({ "k": [1, "two"] }).as_object().unwrap().clone();
    (0..5)
        .map(|index| Example {
            id: format!("id {index}"),
            input: format!("line\n\"{index}\", é").into(),
            output: (index % 2 == 0).then(|| json!({ "n": index })),
            reference: Some(json!(index)),
            context: None,
            metadata: metadata.clone(),
        })
        .collect()
}

fn file(format: Format) -> Vec<u8> {
    let mut file = Vec::new();
    export(Type::Custom, format, &examples(), &mut file).unwrap();
    file
}

/// Pieces of the formats, so that more than the first byte is looked at.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"id",
        b"input",
        b"metadata",
        b",",
        b"\n",
        b"\r",
        b"\"",
        b"[",
        b"]",
        b"{",
        b"}",
        b"{\"data\":[",
        b"{\"input\":",
        b"null",
        b"1e999",
        b"-0",
        b"\\ud800",
        b"\"\\u0000\"",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xff",
        b"PAR1",
        b"\0",
        b"x",
    ];
    let piece = prop_oneof![
        4 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the bytes, there is an answer.
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in pieces()) {
        for format in Format::ALL {
            for r#type in Type::ALL {
                let _ = import(Source::Bytes(bytes.clone().into()), &how(r#type, format));
            }
        }
    }

    /// Bytes changed within a file: an answer, in which every row that is given has an id and an input.
    #[test]
    fn changed_bytes_give_an_answer(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        for format in [Format::Json, Format::Jsonl, Format::Csv] {
            let mut bytes = file(format);
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Ok(read) = import(Source::Bytes(bytes.into()), &how(Type::Custom, format)) {
                prop_assert!(read.iter().all(|example| !example.id.is_empty() && !example.input.is_null()));
            }
        }
    }
}

/// At every byte: an error with a place, or the first rows, whole.
#[test]
fn a_cut_file_gives_whole_rows_or_says_where() {
    let whole = examples();
    for format in Format::ALL {
        let file = file(format);
        let mut given = 0;
        for cut in 0..file.len() {
            match import(Source::Bytes(Bytes::copy_from_slice(&file[..cut])), &how(Type::Custom, format)) {
                Ok(read) => {
                    assert!(whole.starts_with(&read), "{format:?} cut at {cut}: {read:?}");
                    assert!(format != Format::Parquet, "parquet cut at {cut} was read");
                    // Only the line end behind the bracket may be missing of JSON.
                    assert!(format != Format::Json || cut == file.len() - 1, "json cut at {cut} was read");
                    given += 1;
                }
                Err(Error::Unreadable { place, .. }) => assert!(!place.is_empty()),
                Err(Error::Faults(faults)) => {
                    assert!(faults.listed.iter().all(|fault| fault.line.is_some()), "{faults}")
                }
                Err(Error::Columns { .. }) => assert!(cut < 60, "{format:?} cut at {cut}"),
                Err(error) => panic!("{format:?} cut at {cut}: {error}"),
            }
        }
        let expected = match format {
            Format::Json => 1,
            // At each line end, before it and behind it, and the empty file; the last of them is no cut.
            Format::Jsonl => 1 + 2 * whole.len() - 1,
            // Behind the header's and each row's line end.
            Format::Csv => whole.len(),
            Format::Parquet => 0,
        };
        assert_eq!(given, expected, "{format:?}");
    }
}

/// A row longer than is allowed is not taken into memory first, whether or not it ever ends.
#[test]
fn an_endless_row_stops_at_its_bound() {
    for (format, start, more) in [
        (Format::Json, "[{\"input\":\"", "x"),
        (Format::Jsonl, "{\"input\":\"", "x"),
        (Format::Csv, "input\n\"", "x"),
        (Format::Csv, "", "x"),
        (Format::Json, "{\"other\":\"", "x"),
    ] {
        let bytes = format!("{start}{}", more.repeat(1 << 19));
        let read = import(Source::Bytes(bytes.into()), &how(Type::Custom, format));
        assert!(
            matches!(read, Err(Error::TooLarge { ref what, .. }) if what == "a row has bytes"),
            "{format:?}: {read:?}"
        );
    }
    let deep = format!("[{{\"input\":{}", "[".repeat(100_000));
    let read = import(Source::Bytes(deep.into()), &how(Type::Custom, Format::Json));
    assert!(matches!(&read, Err(Error::Unreadable { what, .. }) if what.contains("recursion")), "{read:?}");
}
