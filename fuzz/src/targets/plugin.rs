//! What plugins say: their descriptions and answers as JSON, and the lines that they write.

use std::sync::LazyLock;

use emberd_evaluators_hosts::inside::{answered, asked, described, lines};
use emberd_evaluators_kit::contract::Description;
use emberd_evaluators_kit::path::Path;
use serde_json::Value;

use super::{halves, head};

/// The longest line that is kept, and what stands behind one that was cut.
const LINE_BYTES_MAX: usize = 2 << 10;
const CUT: &str = " ...";
/// Examples that a plugin is asked about.
const EXAMPLES: usize = 3;

const DESCRIPTION: &str = r#"{"contract": 1, "plugin": "words", "evaluators": [{"name": "count", "version": "1", "kind": "code",
    "summary": "s", "fields": [{"name": "output", "required": true, "paths": ["output", "root.output"]}, {"name": "tone"}],
    "outputs": [{"name": "count", "direction": "neutral", "min": 0, "max": 10}, {"name": "tone", "direction": "maximize", "labels": ["good", "bad"]}],
    "config": [{"name": "words", "summary": "w", "default": [1]}], "batch_examples_max": 3, "concurrent_batches_max": 2}]}"#;

static DESCRIBED: LazyLock<Description> =
    LazyLock::new(|| described(DESCRIPTION.as_bytes()).expect("a description").swap_remove(0));

pub(super) fn description_seeds() -> Vec<Vec<u8>> {
    let small = r#"{"contract":1,"plugin":"p","evaluators":[{"name":"m","version":"1","kind":"llm","outputs":[{"name":"m","direction":""}]}]}"#;
    vec![DESCRIPTION.as_bytes().to_vec(), small.as_bytes().to_vec()]
}

/// A description is refused with a reason, or is evaluators whose names, ranges, paths and limits can be used.
pub(super) fn plugin_description(input: &[u8]) {
    let all = match described(input) {
        Ok(all) => all,
        Err(why) => return assert!(!why.is_empty()),
    };
    assert!((1..=256).contains(&all.len()));
    for one in &all {
        assert!(one.name.starts_with("plugin/") && one.name.len() > 7, "{:?}", one.name);
        assert!(!one.outputs.is_empty() && one.limits.concurrent_batches_max > 0 && one.limits.batch_examples_max > 0);
        for path in one.fields.iter().flat_map(|field| &field.paths) {
            assert!(Path::parse(path).is_ok(), "{path:?}");
        }
        for output in &one.outputs {
            let (low, high) = (output.range.min, output.range.max);
            assert!([low, high].into_iter().flatten().all(f64::is_finite), "{low:?} {high:?}");
            assert!(low.zip(high).is_none_or(|(low, high)| low <= high), "{low:?} {high:?}");
        }
    }
}

pub(super) fn answer_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"results":[{"id":1,"scores":[{"name":"count","score":3,"explanation":"e","metadata":{"k":1}},{"name":"tone","label":"good"}]}]}"#,
        r#"{"results":[{"id":2,"error":{"class":"timeout","message":"late"}},{"id":2,"scores":[]},{"id":3,"scores":[{"name":"tone","label":"ugly"}]}]}"#,
        r#"{"results":[{"id":1,"scores":[{"name":"count","score":-1e308,"direction":"minimize"}],"error":{}},{"id":18446744073709551615}]}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Whatever is answered, each example has at most one outcome, of declared, finite scores in their ranges, and the rest wait.
pub(super) fn plugin_answer(input: &[u8]) {
    let (outcomes, rest) = match answered(&DESCRIBED, EXAMPLES, input) {
        Ok(told) => told,
        Err(why) => return assert!(!why.is_empty()),
    };
    let mut places: Vec<usize> = outcomes.iter().map(|(at, _)| *at).chain(rest).collect();
    places.sort_unstable();
    assert_eq!(places, (0..EXAMPLES).collect::<Vec<_>>(), "each once");
    for (_, outcome) in outcomes {
        assert_eq!(outcome.clone().checked(&DESCRIBED), outcome, "what is declared");
        for score in outcome.result.iter().flatten() {
            assert!(score.value.is_some() || score.label.is_some());
            assert!(score.explanation.as_ref().is_none_or(|text| text.len() <= 16 << 10));
        }
    }
}

pub(super) fn request_seeds() -> Vec<Vec<u8>> {
    [&b"\x80{\"words\":[1]}\"text\""[..], b"\x40{}{\"a\":1,\"a\":2}", b"\x20 1 [[[]]]"].map(<[u8]>::to_vec).to_vec()
}

/// What a module is asked is JSON with the configuration and the field as they are; what is no JSON is not asked.
pub(super) fn plugin_request(input: &[u8]) {
    let ([at], rest) = head::<1>(input);
    let (config, field) = halves(rest, at);
    let (Ok(config), Ok(field)) = (str::from_utf8(config), str::from_utf8(field)) else { return };
    let parts = serde_json::from_str::<Value>(config).ok().zip(serde_json::from_str::<Value>(field).ok());
    match (asked(config, field), parts) {
        (Ok(text), Some((config, field))) => {
            // Deeper by the request around it than serde_json reads again: a module's own affair.
            let Ok(request) = serde_json::from_str::<Value>(&text) else { return };
            assert_eq!((&request["config"], &request["examples"][0]["fields"]["output"]), (&config, &field));
        }
        // A number that no f64 holds is JSON as a text, and none as a value.
        (Ok(_), None) | (Err(_), None) => {}
        (Err(why), Some(_)) => panic!("not asked: {why}"),
    }
}

pub(super) fn lines_seeds() -> Vec<Vec<u8>> {
    let long = [&[9][..], &[b'x'; 3000], b"\n\xff\xfe\n", &[b'y'; 2048], b"\r\n\n last"].concat();
    vec![b"\x03one\ntwo\n\nthree".to_vec(), long]
}

/// However a text is cut into pieces, its lines are the same: those between line ends that are not empty, each bounded.
pub(super) fn plugin_lines(input: &[u8]) {
    let ([size], text) = head::<1>(input);
    let told = lines(text.chunks(usize::from(size).max(1)));
    let whole = |line: &[u8]| match line.len() > LINE_BYTES_MAX {
        true => format!("{}{CUT}", String::from_utf8_lossy(&line[..LINE_BYTES_MAX])),
        false => String::from_utf8_lossy(line).into_owned(),
    };
    let expected: Vec<String> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(whole).collect();
    assert_eq!(told, expected);
}
