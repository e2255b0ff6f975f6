//! What pandas and pyarrow write is read here, and what is written here is read there. They are Phoenix's own, in EMBERD_PHOENIX,
//! by default `~/.cache/emberd/phoenix`, where `make test` puts it.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]

use std::path::{Path, PathBuf};
use std::process::Command;

use emberd_evaluators_datasets::{Columns, Example, Extra, Format, Import, Source, Type, export, import};
use serde_json::{Map, Value, json};

fn python(script: &str, dir: &Path) {
    let cache = || PathBuf::from(std::env::var("HOME").expect("HOME")).join(".cache/emberd/phoenix");
    let venv = std::env::var("EMBERD_PHOENIX").map_or_else(|_| cache(), PathBuf::from);
    let program = venv.join("bin/python");
    assert!(program.exists(), "no phoenix in {}: set EMBERD_PHOENIX, or run make test", venv.display());
    let done = Command::new(program).args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn read(dir: &Path, name: &str, how: &Import) -> Vec<Example> {
    let file = std::fs::File::open(dir.join(name)).unwrap();
    import(Source::File(file), how).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// CSV, JSON lines and Parquet of pandas and pyarrow: all compressions that are read, nested columns, missing values, moments.
#[test]
fn what_python_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    python(
        r#"
import datetime, decimal, pandas, pyarrow as pa, pyarrow.parquet as pq
texts = ["", "plain", "ünïcode 漢字 🦀", "line\nend\r\n", 'quotes " and ""', "a,b", "{}", " x "]
frame = pandas.DataFrame({"id": ["i%d" % i for i in range(8)], "question": texts, "answer": texts[::-1]})
frame.to_csv("qa.csv", index=False)
frame.to_csv("qa-bom.csv", index=False, encoding="utf-8-sig", lineterminator="\r\n")
frame.to_json("qa.jsonl", orient="records", lines=True)
frame.to_json("qa.json", orient="records", force_ascii=True)
for codec in ["snappy", "zstd", None]:
    for version in ["1.0", "2.6"]:
        for page in ["1.0", "2.0"]:
            pq.write_table(pa.Table.from_pandas(frame), f"qa-{codec}-{version}-{page}.parquet", compression=codec, version=version, data_page_version=page, row_group_size=3)
frame.to_parquet("qa-pandas.parquet")
frame.iloc[[0, 2]].to_parquet("qa-index.parquet")
pq.write_table(pa.table({"question": texts, "answer": texts}), "gzip.parquet", compression="gzip")
table = pa.table({
    "input": pa.array([{"q": "x", "n": [1, None]}, {"q": None, "n": []}]),
    "output": pa.array([1.5, float("nan")]),
    "reference": pa.array([[["a"], []], None]),
    "context": pa.array(["text", None]),
    "metadata": pa.array(['{"k": 1}', None]),
    "day": pa.array([datetime.date(2026, 1, 2), None]),
    "at_ns": pa.array([datetime.datetime(2026, 1, 2, 3, 4, 5)] * 2, pa.timestamp("ns", "UTC")),
    "at_us": pa.array([datetime.datetime(2026, 1, 2, 3, 4, 5, 6)] * 2, pa.timestamp("us")),
    "price": pa.array([decimal.Decimal("12.50"), None], pa.decimal128(9, 2)),
    "f32": pa.array([0.1, 0.2], pa.float32()), "u64": pa.array([2**64 - 1, 0], pa.uint64()),
    "i8": pa.array([-5, 5], pa.int8()), "flag": pa.array([True, None]),
    "word": pa.array(["w", "w"]).dictionary_encode(), "large": pa.array(["l", "l"], pa.large_string()),
    "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
})
pq.write_table(table, "custom.parquet")
"#,
        dir.path(),
    );
    let texts = ["", "plain", "ünïcode 漢字 🦀", "line\nend\r\n", "quotes \" and \"\"", "a,b", "{}", " x "];
    let whole: Vec<_> = (0..8)
        .map(|index| Example {
            id: format!("i{index}"),
            input: texts[index].into(),
            reference: Some(texts[7 - index].into()),
            ..Example::default()
        })
        .collect();
    let mut seen = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("qa") {
            continue;
        }
        let how = Import::new(Type::QaPairs, Format::of_name(&name).unwrap());
        let expected = if name.contains("index") { vec![whole[0].clone(), whole[2].clone()] } else { whole.clone() };
        assert_eq!(read(dir.path(), &name, &how), expected, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 18);

    let columns = Columns { extra: Extra::Metadata, ..Columns::default() };
    let how = Import { columns, ..Import::new(Type::Custom, Format::Parquet) };
    let custom = read(dir.path(), "custom.parquet", &how);
    assert_eq!(custom[0].input, json!({ "q": "x", "n": [1, null] }));
    assert_eq!(custom[1].input, json!({ "q": null, "n": [] }));
    assert_eq!((&custom[0].output, &custom[1].output), (&Some(json!(1.5)), &None));
    assert_eq!((&custom[0].reference, &custom[1].reference), (&Some(json!([["a"], []])), &None));
    assert_eq!((&custom[0].context, &custom[1].context), (&Some(json!("text")), &None));
    let metadata = json!({
        "k": 1, "day": "2026-01-02", "at_ns": "2026-01-02T03:04:05Z", "at_us": "2026-01-02T03:04:05.000006Z", "price": "12.50",
        "f32": 0.1, "u64": u64::MAX, "i8": -5, "flag": true, "word": "w", "large": "l", "map": { "a": 1 },
    });
    assert_eq!(Value::from(custom[0].metadata.clone()), metadata);
    let columns = Columns {
        id: Some("word".into()),
        input: Some("large".into()),
        output: Some("f32".into()),
        extra: Extra::Ignore,
        ..Columns::default()
    };
    let how = Import { columns, ..Import::new(Type::Custom, Format::Parquet) };
    let file = || Source::File(std::fs::File::open(dir.path().join("custom.parquet")).unwrap());
    let twice = import(file(), &how).unwrap_err().to_string();
    assert_eq!(twice, "row 2, id: is that of row 1 too");
    let how = Import { columns: Columns { id: None, ..how.columns }, ..how };
    let some = import(file(), &how).unwrap();
    assert_eq!((&some[1].input, &some[1].output, &some[0].metadata["k"]), (&json!("l"), &Some(json!(0.2)), &json!(1)));
    assert_eq!(some[0].metadata.len(), 1);
    let file = std::fs::File::open(dir.path().join("gzip.parquet")).unwrap();
    let refused = import(Source::File(file), &Import::new(Type::QaPairs, Format::Parquet)).unwrap_err().to_string();
    assert!(refused.to_lowercase().contains("gzip") || refused.contains("flate2"), "{refused}");
}

/// What is written here: pandas and pyarrow see the same values, and the types that they have.
#[test]
fn what_is_written_is_read_by_python() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = |value: Value| value.as_object().unwrap().clone();
    let example = |id: &str, input: Value, output: Option<Value>, context: Option<Value>| Example {
        id: id.into(),
        input,
        output,
        reference: Some(json!(0.1)),
        context,
        metadata: if id == "a" { metadata(json!({ "k": [1, "é"] })) } else { Map::new() },
    };
    let custom = [
        example("a", json!("line\r\n\"end\", é"), Some(json!(1)), Some(json!({ "docs": ["d"] }))),
        example("b", json!(""), None, Some(json!("plain"))),
        example("c", json!("{\"looks\": \"like\"}"), Some(json!(-3)), None),
    ];
    for (format, name) in
        [(Format::Csv, "x.csv"), (Format::Parquet, "x.parquet"), (Format::Jsonl, "x.jsonl"), (Format::Json, "x.json")]
    {
        let mut file = std::fs::File::create(dir.path().join(name)).unwrap();
        export(Type::Custom, format, &custom, &mut file).unwrap();
    }
    python(
        r#"
import json, pandas, pyarrow as pa, pyarrow.parquet as pq
t = pq.read_table("x.parquet")
assert t.column_names == ["id", "input", "output", "reference", "context", "metadata"], t.column_names
assert t.schema.field("input").type == pa.string() and t.schema.field("output").type == pa.int64(), t.schema
assert t.schema.field("reference").type == pa.float64(), t.schema
d = t.to_pydict()
texts = ['line\r\n"end", é', "", '{"looks": "like"}']
assert d["id"] == ["a", "b", "c"] and d["input"] == texts, d
assert d["output"] == [1, None, -3] and d["reference"] == [0.1] * 3, d
assert [json.loads(c) if c else None for c in d["context"]] == [{"docs": ["d"]}, "plain", None], d
assert json.loads(d["metadata"][0]) == {"k": [1, "é"]} and d["metadata"][1] is None, d
f = pandas.read_parquet("x.parquet")
assert list(f["input"]) == texts, f
c = pandas.read_csv("x.csv", dtype=str, keep_default_na=False)
assert list(c["id"]) == ["a", "b", "c"], c
assert [json.loads(x) if x[:1] in '{"' else x for x in c["input"]][:2] == texts[:2], list(c["input"])
assert json.loads(c["input"][2]) == texts[2] and list(c["output"]) == ["json:1", "", "json:-3"], c
assert json.loads(c["metadata"][0]) == {"k": [1, "é"]} and json.loads(c["context"][0]) == {"docs": ["d"]}, c
rows = [json.loads(l) for l in open("x.jsonl", encoding="utf-8")]
assert rows == json.load(open("x.json", encoding="utf-8")) and [r["input"] for r in rows] == texts, rows
assert "output" not in rows[1] and rows[0]["reference"] == 0.1, rows
pq.write_table(t, "back.parquet", compression="snappy")
f.to_parquet("back-pandas.parquet")
"#,
        dir.path(),
    );
    let back = read(dir.path(), "back.parquet", &Import::new(Type::Custom, Format::Parquet));
    assert_eq!(
        back.iter().map(|one| &one.input).collect::<Vec<_>>(),
        custom.iter().map(|one| &one.input).collect::<Vec<_>>()
    );
    assert_eq!(back[0].metadata, custom[0].metadata);
}
