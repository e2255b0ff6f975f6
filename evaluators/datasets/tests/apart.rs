//! Parquet read in a process of its own, which is this program again: what it reads, what it survives, what it says.
//!
//! Without the usual harness, whose output would stand among the rows.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]

#[path = "common/mutants.rs"]
mod mutants;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use emberd_evaluators_datasets::apart::{Apart, child};
use emberd_evaluators_datasets::{Columns, Error, Example, Extra, Format, Import, Limits, Reader, Type, export};
use serde_json::json;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("read") => return ExitCode::from(child::run()),
        Some("hang") => std::thread::sleep(Duration::from_secs(3_600)),
        Some("flood") => while std::io::stdout().write_all(&[b'x'; 1 << 16]).is_ok() {},
        Some("nonsense") => println!("{{}}"),
        Some("--list") => {}
        _ => {
            what_is_read_is_what_is_read_here();
            every_mutant_is_read_or_is_an_error();
            a_page_that_asks_for_two_gib_is_refused();
            a_name_counts_in_every_row();
            a_process_that_does_not_do_its_work_is_ended();
        }
    }
    ExitCode::SUCCESS
}

fn apart(does: &str) -> Apart {
    Apart { arguments: vec![does.into()], ..Apart::this_program("") }
}

fn read(file: Vec<u8>, how: &Import) -> Result<Vec<Example>, Error> {
    Reader::Apart(apart("read")).import(Bytes::from(file), how)
}

fn parquet(kind: Type, examples: &[Example]) -> Vec<u8> {
    let mut file = Vec::new();
    export(kind, Format::Parquet, examples, &mut file).unwrap();
    file
}

/// Examples come as they would have come without the process; so does what is wrong with columns, rows and sizes.
fn what_is_read_is_what_is_read_here() {
    let example = |index: usize| Example {
        id: format!("id {index}"),
        input: json!(format!("line\n\u{1}\"é{index}")),
        output: Some(json!({ "deep": [[[index]], 0.1, 1e300, -0.0, null] })),
        reference: index.is_multiple_of(3).then(|| json!(i64::MIN)),
        metadata: json!({ "k": { "v": index } }).as_object().unwrap().clone(),
        ..Example::default()
    };
    let examples: Vec<_> = (0..25_000).map(example).collect();
    let file = Bytes::from(parquet(Type::Custom, &examples));
    let how = Import::new(Type::Custom, Format::Parquet);
    assert_eq!(read(file.to_vec(), &how).unwrap(), examples);

    let few = |limits| Import { limits, ..how.clone() };
    let columns = Columns { input: Some("question".into()), extra: Extra::Ignore, ..Columns::default() };
    let wrong = [
        Import::new(Type::QaPairs, Format::Parquet),
        Import { columns, ..how.clone() },
        Import {
            r#type: Type::Completions,
            columns: Columns {
                input: Some("input".into()),
                output: Some("reference".into()),
                extra: Extra::Ignore,
                ..Columns::default()
            },
            ..how.clone()
        },
        few(Limits { rows: 24_999, ..Limits::default() }),
        few(Limits { row_bytes: 60, ..Limits::default() }),
        few(Limits { total_bytes: 1_000_000, ..Limits::default() }),
        few(Limits { file_bytes: 1_000, ..Limits::default() }),
    ];
    for how in wrong {
        let here = Reader::Here.import(file.clone(), &how).unwrap_err().to_string();
        assert_eq!(read(file.to_vec(), &how).unwrap_err().to_string(), here);
    }
    for file in [Vec::new(), b"PAR1".to_vec(), b"PAR1aaaaPAR1".to_vec(), vec![0; 100_000]] {
        let here = Reader::Here.import(Bytes::from(file.clone()), &how).unwrap_err().to_string();
        assert_eq!(read(file, &how).unwrap_err().to_string(), here);
    }
}

/// All mutants that make the crate panic, and every hundredth of the others, are read as they are here, or their Parquet is malformed.
fn every_mutant_is_read_or_is_an_error() {
    let how = mutants::how();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let (mut panics, mut asked) = (0, 0);
    for (index, mutant) in mutants::mutants(&mutants::file()).enumerate() {
        let here = Reader::Here.import(Bytes::from(mutant.clone()), &how).map_err(|error| error.to_string());
        let panicked = here.as_ref().is_err_and(|said| said.ends_with("its Parquet is malformed"));
        if !panicked && !index.is_multiple_of(100) {
            continue;
        }
        (panics, asked) = (panics + usize::from(panicked), asked + 1);
        match (read(mutant, &how), here) {
            (Err(error), Err(_)) if panicked => {
                assert!(error.to_string().ends_with("the file's Parquet is malformed"), "{index}: {error}");
            }
            (there, here) => assert_eq!(there.map_err(|error| error.to_string()), here, "{index}"),
        }
    }
    std::panic::set_hook(hook);
    println!("of {} mutants {panics} made the crate panic; {asked} were read apart", mutants::MUTANTS);
    assert!(panics > 0, "nothing was shown");
}

/// The process is refused the memory and ends of it; nobody else does.
fn a_page_that_asks_for_two_gib_is_refused() {
    let error = read(mutants::lying(), &Import::new(Type::Custom, Format::Parquet)).unwrap_err().to_string();
    assert_eq!(error, "row 1: asks for more than 512 MiB of memory");
}

/// A struct's field of a long name is in every row that is made of the file, so it is counted there.
fn a_name_counts_in_every_row() {
    use parquet::data_type::Int64Type;
    use parquet::file::writer::SerializedFileWriter;
    let (name, rows) = ("n".repeat(100_000), 2_000);
    let schema = format!("message m {{ required group input {{ required int64 {name}; }} }}");
    let schema = parquet::schema::parser::parse_message_type(&schema).unwrap();
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema.into(), Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&vec![7; rows], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let limits = Limits { total_bytes: 100 << 20, ..Limits::default() };
    let how = Import { limits, ..Import::new(Type::Custom, Format::Parquet) };
    let error = read(file, &how).unwrap_err();
    assert!(matches!(error, Error::TooLarge { max, .. } if max == 100 << 20), "{error}");
}

/// One that hangs, floods, says nonsense or is not there costs an error, soon.
fn a_process_that_does_not_do_its_work_is_ended() {
    let how = mutants::how();
    let file = Bytes::from(vec![0; 1 << 20]);
    let since = Instant::now();
    let told = |apart: Apart| Reader::Apart(apart).import(file.clone(), &how).unwrap_err().to_string();
    let late = told(Apart { deadline: Duration::from_secs(1), ..apart("hang") });
    assert_eq!(late, "row 1: takes longer than 1 s to read");
    assert_eq!(told(apart("flood")), "a row has bytes more than 262144");
    assert_eq!(told(apart("nonsense")), "row 1: is nested too deep");
    assert_eq!(told(apart("--list")), "row 1: its reader ended: exit status: 0");
    assert_eq!(told(Apart { program: "/nowhere".into(), ..apart("read") }), "cannot read the file");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}
