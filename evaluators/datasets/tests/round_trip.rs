//! What is exported is imported equal: every format, every type, hostile texts included.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]

use bytes::Bytes;
use emberd_evaluators_datasets::phoenix::{from_phoenix, to_phoenix};
use emberd_evaluators_datasets::{Columns, Example, Extra, Format, Import, Source, Type, export, import, validate};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn text() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        "",
        " ",
        "\0",
        "\"",
        "\"\"",
        "\"quoted\"",
        ",",
        "a,b",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "a\nb\r\nc\rd",
        "\u{feff}",
        "\u{feff}id",
        "{",
        "{}",
        "[1]",
        "{\"a\":1}",
        "json:",
        "json:1",
        "json:\"",
        "null",
        "true",
        "42",
        "1e999",
        "=cmd()",
        "\u{202e}",
        "\u{10ffff}",
        "\u{2028}",
        "NaN",
        "\\",
        "\\N",
        "é",
        "漢字",
        "🦀",
        "\t",
        "'",
        " x ",
        "\u{a0}",
        "id",
        "\"a\",\"b\"\n",
    ]);
    prop_oneof![hostile.prop_map(str::to_owned), any::<String>(), "[a-z,\"\n\r{}\\[\\] ]{0,12}"]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ]
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((text(), value), 0..4).prop_map(|fields| fields.into_iter().collect())
}

fn nested() -> BoxedStrategy<Value> {
    prop_oneof![leaf(), Just(Value::Null)]
        .prop_recursive(3, 12, 4, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
            prop_oneof![list, object(inner).prop_map(Value::from)]
        })
        .boxed()
}

/// Any JSON that is a value: `null` is none.
fn any_json() -> BoxedStrategy<Value> {
    prop_oneof![leaf(), nested().prop_filter("null is no value", |value| !value.is_null())].boxed()
}

/// Columns whose values are all of one type, which Parquet keeps as such, and columns of any.
fn column() -> impl Strategy<Value = BoxedStrategy<Value>> {
    prop_oneof![
        Just(text().prop_map(Value::from).boxed()),
        Just(any::<i64>().prop_map(Value::from).boxed()),
        Just(any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from).boxed()),
        Just(any::<bool>().prop_map(Value::from).boxed()),
        Just(any_json()),
    ]
}

fn example(r#type: Type, values: BoxedStrategy<Value>) -> BoxedStrategy<Example> {
    let words = text().prop_map(Value::from).boxed();
    let maybe = |value: &BoxedStrategy<Value>| prop::option::of(value.clone());
    let metadata = object(nested());
    match r#type {
        Type::Custom => (values.clone(), maybe(&values), maybe(&values), maybe(&values), metadata)
            .prop_map(|(input, output, reference, context, metadata)| Example {
                id: String::new(),
                input,
                output,
                reference,
                context,
                metadata,
            })
            .boxed(),
        _ => (words.clone(), words, metadata)
            .prop_map(move |(input, other, metadata)| {
                let is_output = r#type == Type::Completions;
                let (output, reference) = if is_output { (Some(other), None) } else { (None, Some(other)) };
                Example { id: String::new(), input, output, reference, context: None, metadata }
            })
            .boxed(),
    }
}

/// Examples of a type; every third has an id made out of its content, the others one that was given.
fn examples() -> impl Strategy<Value = (Type, Vec<Example>)> {
    let of = |r#type: Type| {
        let many = column().prop_flat_map(move |values| prop::collection::vec(example(r#type, values), 0..8));
        many.prop_map(move |mut examples| {
            for (index, example) in examples.iter_mut().enumerate() {
                example.id = if index % 3 == 0 { example.content_id() } else { format!("given, \"{index}\"") };
            }
            examples.dedup_by(|one, other| one.id == other.id);
            let mut seen = std::collections::HashSet::new();
            examples.retain(|example| seen.insert(example.id.clone()));
            (r#type, examples)
        })
    };
    prop::sample::select(Type::ALL.to_vec()).prop_flat_map(of)
}

fn written(r#type: Type, format: Format, examples: &[Example]) -> Bytes {
    let mut file = Vec::new();
    export(r#type, format, examples, &mut file).unwrap();
    file.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// In each format.
    #[test]
    fn a_file_gives_back_what_it_was_given((r#type, examples) in examples()) {
        for format in Format::ALL {
            let file = written(r#type, format, &examples);
            let read = import(Source::Bytes(file.clone()), &Import::new(r#type, format));
            prop_assert_eq!(read.map_err(|error| format!("{format:?}: {error}")), Ok(examples.clone()), "{:?}", file);
        }
    }

    /// In Phoenix's shape, and as the rows of a request.
    #[test]
    fn so_do_phoenix_and_a_request((r#type, examples) in examples()) {
        let back: Vec<_> =
            examples.iter().map(|example| from_phoenix(r#type, to_phoenix(r#type, example)).unwrap()).collect();
        prop_assert_eq!(&back, &examples);
        let rows: Vec<Value> = examples.iter().map(|example| r#type.row(example).into()).collect();
        prop_assert_eq!(validate(r#type, &rows, 1).unwrap(), examples);
    }

    /// The cell rule and the quoting do not depend on the delimiter or the kind of line end.
    #[test]
    fn line_ends_do_not_matter(cells in prop::collection::vec("[a-z]{0,3}", 1..6)) {
        let lines: Vec<String> = cells.iter().map(|cell| format!("{cell};x")).collect();
        let mut how = Import::new(Type::QaPairs, Format::Csv);
        how.delimiter = b';';
        let mut read = Vec::new();
        for end in ["\n", "\r\n", "\r"] {
            let file = format!("\u{feff}question;answer{end}{}{end}{end}", lines.join(end));
            read.push(import(Source::Bytes(file.into()), &how).unwrap());
        }
        prop_assert_eq!(read[0].len(), cells.len());
        prop_assert_eq!(&read[0], &read[1]);
        prop_assert_eq!(&read[0], &read[2]);
    }
}

fn csv(text: &str, how: &Import) -> Result<Vec<Example>, String> {
    import(Source::Bytes(text.to_owned().into()), how).map_err(|error| error.to_string())
}

/// Columns of other names are found by the mapping; others are refused, left out, or kept as metadata.
#[test]
fn columns_are_found_by_their_names() {
    let file = "key,q,ref,topic\n1,what?,that,\n2,why?,so,t\n";
    let mut how = Import::new(Type::QaPairs, Format::Csv);
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(csv(file, &how).unwrap_err(), "the column \"key\" is none of id, question, answer, metadata");
    how.columns = Columns { id: named("key"), input: named("q"), reference: named("ref"), ..Columns::default() };
    assert_eq!(csv(file, &how).unwrap_err(), "the column \"topic\" is none of key, q, ref, metadata");
    how.columns.extra = Extra::Ignore;
    let read = csv(file, &how).unwrap();
    assert_eq!((read[0].id.as_str(), &read[1].input, &read[1].metadata), ("1", &json!("why?"), &Map::new()));
    how.columns.extra = Extra::Metadata;
    let read = csv(file, &how).unwrap();
    assert_eq!((&read[0].metadata, Value::from(read[1].metadata.clone())), (&Map::new(), json!({ "topic": "t" })));
    how.columns.input = named("absent");
    assert_eq!(csv(file, &how).unwrap_err(), "there is no column \"absent\", only \"key\", \"q\", \"ref\", \"topic\"");
    how.columns.output = named("q");
    assert_eq!(csv(file, &how).unwrap_err(), "column \"q\" is named for output, which qa_pairs has not");
    let how = Import {
        columns: Columns { input: named("x"), ..Columns::default() },
        ..Import::new(Type::Custom, Format::Json)
    };
    let read = import(Source::Bytes(Bytes::from_static(br#"{"v": [1], "data": [{"x": {"a": 1}}]}"#)), &how).unwrap();
    assert_eq!(read[0].input, json!({ "a": 1 }));
}

/// A header's absence, a short row, bad bytes and bad quoting are all said with their line.
#[test]
fn what_is_wrong_with_csv_is_said_with_its_line() {
    let how = Import::new(Type::QaPairs, Format::Csv);
    let all = "question,answer\n\"two\nlines\",a\nonly\n\nq,a,b\nq,a\n";
    assert_eq!(
        csv(all, &how).unwrap_err(),
        "row 2 (line 4): has 1 cells, the header 2; row 3 (line 6): has 3 cells, the header 2"
    );
    assert_eq!(
        csv("question,answer\nq,\"a\nb", &how).unwrap_err(),
        "line 2: the file ends within quotes that begin here"
    );
    assert_eq!(csv("question,answer\nq,\"a\"b\n", &how).unwrap_err(), "line 2: there is text after a closing quote");
    assert_eq!(csv("question,question\n", &how).unwrap_err(), "the column \"question\" is there twice");
    assert_eq!(csv("", &how).unwrap_err(), "the file is empty: there is no header");
    assert!(csv("question,answer\nq,a", &how).unwrap_err().starts_with("line 2: the last line has no line end"));
    assert_eq!(csv("question,answer\nq,a", &Import { unended_csv: true, ..how.clone() }).unwrap().len(), 1);
    let bytes = Bytes::from_static(b"question,answer\nq,\xff\n");
    assert_eq!(import(Source::Bytes(bytes), &how).unwrap_err().to_string(), "row 1 (line 2), answer: is not UTF-8");
    let bytes = Bytes::from_static(b"\xff\xfeq\0");
    assert_eq!(import(Source::Bytes(bytes), &how).unwrap_err().to_string(), "byte 1: is UTF-16, must be UTF-8");
}

/// Every bound holds: file, row, rows, all together, in each format.
#[test]
fn every_bound_holds() {
    let example =
        |index: usize| Example { id: format!("{index}"), input: "x".repeat(500).into(), ..Example::default() };
    let examples: Vec<_> = (0..20).map(example).collect();
    for format in Format::ALL {
        let file = written(Type::Custom, format, &examples);
        let fails = |change: fn(&mut emberd_evaluators_datasets::Limits)| {
            let mut how = Import::new(Type::Custom, format);
            change(&mut how.limits);
            import(Source::Bytes(file.clone()), &how).unwrap_err().to_string()
        };
        assert_eq!(fails(|limits| limits.file_bytes = 300), "the file has bytes more than 300", "{format:?}");
        assert_eq!(fails(|limits| limits.row_bytes = 400), "a row has bytes more than 400", "{format:?}");
        assert_eq!(fails(|limits| limits.rows = 19), "the file has rows more than 19", "{format:?}");
        let all = fails(|limits| limits.total_bytes = 700);
        assert_eq!(all, "all rows together have bytes more than 700", "{format:?}");
        let mut named = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut named, &file).unwrap();
        std::io::Seek::rewind(&mut named).unwrap();
        assert_eq!(import(Source::File(named), &Import::new(Type::Custom, format)).unwrap(), examples, "{format:?}");
    }
}
