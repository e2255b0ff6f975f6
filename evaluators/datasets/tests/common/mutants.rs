//! A file of Parquet, and what becomes of it when some of its bytes are others.

use emberd_evaluators_datasets::{Example, Format, Import, Limits, Type, export};
use serde_json::json;

/// How many mutants there are.
pub(crate) const MUTANTS: usize = 20_000;

/// A generator of its own, so that a run can be told again by its seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Forty examples of a custom dataset.
pub(crate) fn file() -> Vec<u8> {
    let examples: Vec<_> = (0..40)
        .map(|index| Example {
            id: format!("id {index}"),
            input: format!("text {}", index % 7).into(),
            output: (index % 2 == 0).then(|| json!({ "n": index })),
            reference: Some(json!(index)),
            ..Example::default()
        })
        .collect();
    let mut file = Vec::new();
    export(Type::Custom, Format::Parquet, &examples, &mut file).unwrap();
    file
}

/// The file with one to four bytes changed, [`MUTANTS`] times.
pub(crate) fn mutants(file: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut chance = Chance(1);
    (0..MUTANTS).map(move |_| {
        let mut bytes = file.to_vec();
        for _ in 0..=chance.next() % 4 {
            let at = (chance.next() % bytes.len() as u64) as usize;
            bytes[at] = chance.next() as u8;
        }
        bytes
    })
}

/// Bounds near what the file has, so that some mutants pass them.
pub(crate) fn how() -> Import {
    let limits = Limits { file_bytes: 1 << 20, row_bytes: 1 << 18, rows: 10_000, total_bytes: 1 << 21, faults: 10 };
    Import { limits, ..Import::new(Type::Custom, Format::Parquet) }
}

/// A file whose first page says that it holds 2 GiB when inflated.
pub(crate) fn lying() -> Vec<u8> {
    // Texts that do not compress, so that the page is longer than its header by far.
    let mut chance = Chance(7);
    let ids = (0..200).map(|_| format!("{:016x}{:016x}", chance.next(), chance.next()));
    let examples: Vec<_> = ids.map(|id| Example { id, input: "text".into(), ..Example::default() }).collect();
    let mut file = Vec::new();
    export(Type::Custom, Format::Parquet, &examples, &mut file).unwrap();
    // Thrift, compact: field 1 the page's type, 2 its size inflated, 3 as it stands; each an i32 in zigzag.
    assert_eq!((&file[..5], file[6]), (&b"PAR1\x15"[..], 0x15), "{:x?}", &file[..16]);
    let (_, inflated) = varint(&file[7..]);
    let (size, stands) = varint(&file[7 + inflated + 1..]);
    let grown = varint_of(0xffff_fffe);
    // As many bytes as the size takes more are taken from the page, so that everything else stays where it was.
    let more = grown.len() - inflated;
    let shrunk = varint_of(size - 2 * more as u64);
    assert_eq!(shrunk.len(), stands);
    let rest = 7 + inflated + 1 + stands;
    let mut lying =
        [&file[..7], &grown, &[0x15], &shrunk, &file[rest..rest + 500], &file[rest + 500 + more..]].concat();
    lying.shrink_to_fit();
    assert_eq!(lying.len(), file.len());
    lying
}

fn varint(bytes: &[u8]) -> (u64, usize) {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    (bytes[..length].iter().rev().fold(0, |sum, byte| (sum << 7) | u64::from(byte & 0x7f)), length)
}

fn varint_of(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
