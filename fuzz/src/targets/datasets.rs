//! Files of datasets: JSON, JSONL and CSV.

use emberd_evaluators_datasets::{Error, Example, Format, Import, Limits, Source, Type, export, import, validate};
use serde_json::Value;

use super::head;
use crate::memory;

/// What a byte of a file may take in memory: a row of JSON `[` is a value of some dozens of bytes, in a list that grows by doubling.
const BYTES_PER_BYTE: usize = 600;
/// Buffers, whatever the file is.
const BYTES_FIXED: usize = 256 << 10;

fn how(head: u8, format: Format) -> Import {
    let limits = Limits { file_bytes: 64 << 10, row_bytes: 16 << 10, rows: 500, total_bytes: 32 << 10, faults: 5 };
    Import { limits, unended_csv: head & 4 != 0, ..Import::new(Type::ALL[usize::from(head & 3)], format) }
}

/// Reads it within bounds of memory; what is wrong is said, and of faults no more than were asked for.
fn read(file: &[u8], how: &Import) -> Option<Vec<Example>> {
    let bytes = bytes::Bytes::copy_from_slice(file);
    let read = memory::within(BYTES_FIXED + BYTES_PER_BYTE * file.len(), || import(Source::Bytes(bytes), how));
    match read {
        Ok(examples) => Some(examples),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if let Error::Faults(faults) = &error {
                assert!((1..=5).contains(&faults.listed.len()), "{error}");
            }
            None
        }
    }
}

/// What was read can be written in this format, and is read back equal.
fn comes_back(examples: &[Example], how: &Import, format: Format) {
    let mut file = Vec::new();
    export(how.r#type, format, examples, &mut file).expect("a vector can be written");
    let limits = Limits::default();
    let again = import(Source::Bytes(file.clone().into()), &Import { limits, format, ..how.clone() });
    let again = again.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&file)));
    assert_eq!(again, examples, "{}", String::from_utf8_lossy(&file));
}

fn without_mark(file: &[u8]) -> &[u8] {
    file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file)
}

pub(super) fn json_seeds() -> Vec<Vec<u8>> {
    [
        &b"\x03[{\"id\":\"a\",\"input\":{\"k\":[1,null]},\"output\":0.1,\"metadata\":{}},{\"input\":\"b\",\"context\":[]}]"[..],
        b"\x00{\"name\":\"x\",\"data\":[{\"question\":\"q\",\"answer\":\"a\"}],\"more\":[{}]}",
        b"\x02\xef\xbb\xbf [ {\"text\":\"t\\ud83d\\ude00\",\"label\":\"l\"} ] ",
        b"\x01[{\"prompt\":1},2,{\"prompt\":\"p\",\"completion\":\"c\",\"x\":1}]",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// What is read of JSON is what serde_json reads of it, and every format gives it back.
pub(super) fn dataset_json(input: &[u8]) {
    let ([head], file) = head::<1>(input);
    let how = how(head, Format::Json);
    let Some(examples) = read(file, &how) else { return };
    // What stands beside `data` is passed over, and need not even be UTF-8.
    let Ok(text) = str::from_utf8(without_mark(file)) else { return };
    let whole: Value = serde_json::from_str(text).expect("what is read is JSON");
    let rows = whole.get("data").unwrap_or(&whole).as_array().expect("a list of rows");
    assert_eq!(validate(how.r#type, rows, 5).as_deref(), Ok(&examples[..]));
    for format in [Format::Json, Format::Jsonl, Format::Csv] {
        comes_back(&examples, &how, format);
    }
}

pub(super) fn lines_seeds() -> Vec<Vec<u8>> {
    [
        &b"\x03{\"input\":1}\n\n{\"input\":\"b\",\"id\":\"x\"}\r\n"[..],
        b"\x00{\"question\":\"q\",\"answer\":\"a\"}",
        b"\x01{\"prompt\":\"p\"}\n{\"prompt\":\"p\",\"completion\":\"c\"}\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// What is read of JSONL is what serde_json reads of each line that is not empty.
pub(super) fn dataset_jsonl(input: &[u8]) {
    let ([head], file) = head::<1>(input);
    let how = how(head, Format::Jsonl);
    let Some(examples) = read(file, &how) else { return };
    let lines = without_mark(file).split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let rows: Vec<Value> =
        lines.map(|line| serde_json::from_slice(line.trim_ascii()).expect("a line of JSON")).collect();
    assert_eq!(validate(how.r#type, &rows, 5).as_deref(), Ok(&examples[..]));
    comes_back(&examples, &how, Format::Jsonl);
}

pub(super) fn csv_seeds() -> Vec<Vec<u8>> {
    [
        &b"\x03id,input,output,metadata\na,\"line\n\"\"1\"\"\",json:1,\"{\"\"k\"\":1}\"\n,x,,\n"[..],
        b"\x00question,answer\r\nq,a\r\n\"q,2\",\"\"\r\n",
        b"\x06\xef\xbb\xbftext,label\nt,l",
        b"\x03input\n\"{\"\"a\"\":[1]}\"\n\"[\"\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// What is read of CSV has as many cells as its header in each row, and is given back by it.
pub(super) fn dataset_csv(input: &[u8]) {
    let ([head], file) = head::<1>(input);
    let how = how(head, Format::Csv);
    let Some(examples) = read(file, &how) else { return };
    assert!(examples.len() <= file.len());
    comes_back(&examples, &how, Format::Csv);
}
