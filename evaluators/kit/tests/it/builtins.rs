//! Each built-in by examples, its configuration by what it refuses, and its bounds by inputs of megabytes.

use emberd_evaluators_kit::{Class, Kind, build, descriptions};
use serde_json::{Value, json};

use crate::{built, class, example, only, spec};

/// (evaluator, config, example, score, label)
type Row = (&'static str, Value, Value, f64, Option<&'static str>);

fn output(text: &str) -> Value {
    json!({"output": text})
}

fn rows() -> Vec<Row> {
    let tools = json!([{"name": "search", "arguments": {"q": "x", "n": 3}}, {"function": {"name": "send", "arguments": "{\"to\": \"a\"}"}}]);
    let calls = |reference: Value| json!({"metadata": {"tool_calls": tools}, "reference": reference});
    vec![
        ("exact_match", json!({}), json!({"output": "a", "reference": "a"}), 1.0, Some("true")),
        ("exact_match", json!({}), json!({"output": "A ", "reference": "a"}), 0.0, Some("false")),
        (
            "exact_match",
            json!({"case_sensitive": false, "trim": true}),
            json!({"output": "A ", "reference": "a"}),
            1.0,
            Some("true"),
        ),
        ("exact_match", json!({}), json!({"output": "b", "reference": ["a", "b"]}), 1.0, Some("true")),
        ("exact_match", json!({}), json!({"output": ["a", "b"], "reference": ["a", "b"]}), 1.0, Some("true")),
        (
            "exact_match",
            json!({}),
            json!({"output": {"a": 1, "b": 2}, "reference": {"b": 2, "a": 1}}),
            1.0,
            Some("true"),
        ),
        ("contains", json!({"words": ["Paris"]}), output("in paris"), 1.0, Some("true")),
        ("contains", json!({"words": ["Paris"], "case_sensitive": true}), output("in paris"), 0.0, Some("false")),
        ("contains", json!({"words": "a, zz", "require_all": true}), output("a b"), 0.0, Some("false")),
        ("contains", json!({"words": ["ab", "b", "abc"], "require_all": true}), output("xabc"), 1.0, Some("true")),
        ("contains", json!({}), json!({"output": "it is 42.", "reference": 42}), 1.0, Some("true")),
        ("regex", json!({"pattern": "^[0-9]+$"}), output("42"), 1.0, Some("true")),
        ("regex", json!({"pattern": "4", "full_match": true}), output("42"), 0.0, Some("false")),
        ("regex", json!({"pattern": "4", "must_match": false}), output("42"), 0.0, Some("false")),
        ("regex", json!({"pattern": "A", "case_sensitive": false}), output("a"), 1.0, Some("true")),
        ("levenshtein", json!({}), json!({"output": "", "reference": ""}), 1.0, None),
        (
            "levenshtein",
            json!({"measure": "similarity"}),
            json!({"output": "kitten", "reference": "sitting"}),
            4.0 / 7.0,
            None,
        ),
        ("levenshtein", json!({"case_sensitive": false}), json!({"output": "ABC", "reference": "abc"}), 1.0, None),
        (
            "rouge_l",
            json!({"tokens": "unicode"}),
            json!({"output": "привет мир", "reference": "привет мир"}),
            1.0,
            None,
        ),
        ("rouge_l", json!({}), json!({"output": "привет мир", "reference": "привет мир"}), 0.0, None),
        ("bleu", json!({}), json!({"output": "a b c d e", "reference": "a b c d e"}), 1.0, None),
        ("json_valid", json!({}), output(" {\"a\": [1, 2.5e3, null]} "), 1.0, Some("true")),
        ("json_valid", json!({}), output("{'a': 1}"), 0.0, Some("false")),
        ("json_valid", json!({}), output("{} {}"), 0.0, Some("false")),
        ("json_valid", json!({}), output(&format!("{}{}", "[".repeat(1000), "]".repeat(1000))), 1.0, Some("true")),
        ("json_valid", json!({"type": "object"}), output("[1]"), 0.0, Some("false")),
        ("json_valid", json!({"type": "object"}), json!({"output": {"a": 1}}), 1.0, Some("true")),
        (
            "json_schema",
            json!({"schema": {"type": "object", "required": ["a"]}}),
            output("{\"a\": 1}"),
            1.0,
            Some("true"),
        ),
        ("json_schema", json!({"schema": {"type": "object", "required": ["a"]}}), output("{}"), 0.0, Some("false")),
        ("json_schema", json!({"schema": {"type": "object"}}), output("no"), 0.0, Some("false")),
        (
            "json_distance",
            json!({}),
            json!({"output": {"a": 1, "c": [1, 2]}, "reference": {"a": 2, "b": 1, "c": [1]}}),
            3.0,
            None,
        ),
        ("json_distance", json!({"parse_strings": false}), json!({"output": "1", "reference": 1}), 1.0, None),
        ("length_bounds", json!({"max": 3}), output("äöü"), 1.0, Some("true")),
        ("length_bounds", json!({"max": 3, "unit": "bytes"}), output("äöü"), 0.0, Some("false")),
        ("length", json!({"min": 2, "unit": "words"}), output("one"), 0.0, Some("false")),
        ("length", json!({"min": 2, "max": 2, "unit": "lines"}), output("one\ntwo\n"), 1.0, Some("true")),
        ("repetition", json!({"n": 1}), output("a b a b"), 0.5, None),
        ("repetition", json!({}), output("no run twice"), 0.0, None),
        ("repetition", json!({"n": 2}), output(""), 0.0, None),
        ("refusal_phrases", json!({}), output("I’m sorry, but I can’t help with that."), 1.0, Some("refused")),
        ("refusal_phrases", json!({}), output("Sure: 42."), 0.0, Some("answered")),
        (
            "refusal_phrases",
            json!({"phrases": ["geht leider nicht"]}),
            output("Das geht leider nicht."),
            1.0,
            Some("refused"),
        ),
        (
            "refusal_phrases",
            json!({"first_bytes": 10}),
            output("Long answer. I cannot help with more."),
            0.0,
            Some("answered"),
        ),
        ("pii", json!({}), output("write to ada@example.org"), 1.0, Some("pii_detected")),
        ("pii_pattern", json!({"kinds": ["card"]}), output("4111-1111-1111-1111"), 1.0, Some("pii_detected")),
        ("pii_pattern", json!({"kinds": ["card"]}), output("4111-1111-1111-1112"), 0.0, Some("no_pii_detected")),
        ("pii_pattern", json!({}), output("version 1.2.3.4 of 2024-05-01"), 0.0, Some("no_pii_detected")),
        ("toxicity_words", json!({}), output("You IDIOT!"), 1.0, Some("toxic")),
        ("toxicity_words", json!({}), output("idiotic is another word"), 0.0, Some("non-toxic")),
        ("toxicity_words", json!({"words": ["blöd"], "shipped": false}), output("das ist blöd."), 1.0, Some("toxic")),
        (
            "language",
            json!({"expected": "en"}),
            output("The quick brown fox jumps over the lazy dog and runs away."),
            1.0,
            Some("true"),
        ),
        (
            "language",
            json!({"expected": ["de", "fra"]}),
            output("The quick brown fox jumps over the lazy dog and runs away."),
            0.0,
            Some("false"),
        ),
        (
            "language",
            json!({"expected": "rus"}),
            output("Быстрая лиса перепрыгивает через ленивую собаку."),
            1.0,
            Some("true"),
        ),
        ("finish_reason_ok", json!({}), json!({"metadata": {"finish_reason": "STOP"}}), 1.0, Some("true")),
        ("finish_reason_ok", json!({}), json!({"metadata": {"finish_reason": "length"}}), 0.0, Some("false")),
        (
            "finish_reason_ok",
            json!({"allowed": ["length"]}),
            json!({"metadata": {"finish_reason": ["stop", "length"]}}),
            1.0,
            Some("true"),
        ),
        ("tool_sequence", json!({}), calls(json!(["search", "send"])), 1.0, Some("true")),
        ("tool_sequence", json!({}), calls(json!(["send", "search"])), 0.0, Some("false")),
        ("tool_sequence", json!({"order": "any_order"}), calls(json!(["send", "search"])), 1.0, Some("true")),
        ("tool_sequence", json!({"order": "in_order"}), calls(json!(["send"])), 1.0, Some("true")),
        ("tool_sequence", json!({"order": "superset"}), calls(json!(["send", "send"])), 0.0, Some("false")),
        ("tool_call_match", json!({}), calls(json!([{"name": "search", "args": {"n": 3, "q": "x"}}])), 2.0 / 3.0, None),
        (
            "tool_call_match",
            json!({"arguments": "subset"}),
            calls(json!([{"name": "search", "args": {"n": 3}}, {"name": "send"}])),
            1.0,
            None,
        ),
        (
            "tool_call_match",
            json!({"arguments": "ignore", "ordered": true}),
            calls(json!(["send", "search"])),
            0.5,
            None,
        ),
        ("tool_call_match", json!({}), json!({"metadata": {"tool_calls": []}, "reference": []}), 1.0, None),
        (
            "tool_args_schema",
            json!({"schemas": {"search": {"required": ["q"]}, "send": {"required": ["subject"]}}}),
            calls(Value::Null),
            0.5,
            Some("false"),
        ),
        (
            "tool_args_schema",
            json!({"schemas": {"search": {}}, "unknown": "ignore"}),
            calls(Value::Null),
            1.0,
            Some("true"),
        ),
        ("latency_budget", json!({"max_ms": 100}), json!({"metadata": {"latency_ms": 100}}), 1.0, Some("true")),
        ("latency", json!({"max_ms": 100}), json!({"metadata": {"latency_ms": 100.5}}), 0.0, Some("false")),
        ("cost_budget", json!({"max_usd": 0.01}), json!({"metadata": {"cost_usd": 0.02}}), 0.0, Some("false")),
        ("token_budget", json!({"max_tokens": 10}), json!({"metadata": {"total_tokens": 9}}), 1.0, Some("true")),
    ]
}

#[test]
fn every_row_scores_as_written() {
    for (name, config, judged, value, label) in rows() {
        let score = only(built(name, config.clone()).run(&example(judged.clone())));
        let found = score.value.unwrap();
        assert!((found - value).abs() < 1e-12, "{name} {config} {judged}: {found}, not {value}");
        assert_eq!(score.label.as_deref(), label, "{name} {config} {judged}");
    }
}

/// A built-in that no row tries would be one that nothing checks.
#[test]
fn every_built_in_has_a_row_and_each_score_is_as_declared() {
    let rows = rows();
    for description in descriptions().into_iter().filter(|description| description.kind == Kind::Code) {
        if description.name == "precision_recall_f" {
            continue; // three scores: references.rs
        }
        let of_it = rows.iter().filter(|(name, config, ..)| {
            let evaluator = built(name, config.clone());
            emberd_evaluators_kit::Evaluator::identity(&evaluator).name == description.name
        });
        assert!(of_it.count() > 0, "{} has no row", description.name);
    }
    for (name, config, judged, ..) in rows {
        let evaluator = built(name, config);
        let outcome = evaluator.run(&example(judged));
        let description = emberd_evaluators_kit::Evaluator::describe(&evaluator);
        assert_eq!(outcome.clone().checked(description), outcome, "{name} breaks its own declaration");
    }
}

/// What is not there, or not readable, or does not tell, is a failure of its class and names the field.
#[test]
fn what_cannot_be_judged_is_a_failure_by_class() {
    let rows = [
        ("exact_match", json!({}), json!({"output": "a"}), Class::MissingField),
        ("exact_match", json!({}), json!({"output": null, "reference": "a"}), Class::MissingField),
        ("contains", json!({}), json!({"output": "a"}), Class::MissingField),
        ("json_distance", json!({}), json!({"output": "no json", "reference": "{}"}), Class::InvalidField),
        ("language", json!({"expected": "en"}), output("12345"), Class::Undecided),
        ("language", json!({"expected": "en"}), output(""), Class::Undecided),
        ("finish_reason_ok", json!({}), json!({"metadata": {"finish_reason": 3}}), Class::InvalidField),
        ("finish_reason_ok", json!({}), json!({}), Class::MissingField),
        ("tool_sequence", json!({}), json!({"metadata": {"tool_calls": "x"}, "reference": []}), Class::InvalidField),
        (
            "tool_sequence",
            json!({}),
            json!({"metadata": {"tool_calls": [{"no": "name"}]}, "reference": []}),
            Class::InvalidField,
        ),
        ("tool_args_schema", json!({"schemas": {"a": {}}}), json!({"metadata": {"tool_calls": []}}), Class::Undecided),
        ("cost_budget", json!({"max_usd": 1}), json!({"trace": {"spans": []}}), Class::MissingField),
        ("cost_budget", json!({"max_usd": 1}), json!({"metadata": {"cost_usd": -1}}), Class::InvalidField),
        ("latency_budget", json!({"max_ms": 1}), json!({"metadata": {"latency_ms": "soon"}}), Class::InvalidField),
        ("precision_recall_f", json!({}), json!({"output": ["a"], "reference": ["a", "b"]}), Class::InvalidField),
        ("precision_recall_f", json!({}), json!({"output": [], "reference": []}), Class::InvalidField),
        ("precision_recall_f", json!({}), json!({"output": [0.5], "reference": [1]}), Class::InvalidField),
        (
            "json_schema",
            json!({"schema": true}),
            output(&format!("{}{}", "[".repeat(1000), "]".repeat(1000))),
            Class::TooLarge,
        ),
    ];
    for (name, config, judged, wanted) in rows {
        let outcome = built(name, config).run(&example(judged.clone()));
        assert_eq!(class(&outcome), wanted, "{name} {judged}");
    }
    let failure = built("exact_match", json!({})).run(&example(json!({"output": "a"}))).result.unwrap_err();
    assert_eq!(failure.message, "reference is missing: nothing at reference");
}

/// An unknown key is refused, and the answer names those that there are: exactly those of the description.
#[test]
fn unknown_keys_are_refused_with_those_that_are_known() {
    for description in descriptions().into_iter().filter(|description| description.kind == Kind::Code) {
        let error = build(&spec(&description.name, json!({"no_such_key": 1}))).unwrap_err().to_string();
        assert!(error.contains("unknown field `no_such_key`"), "{}: {error}", description.name);
        let known: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        let described: Vec<&str> = description.config.iter().map(|key| &*key.name).collect();
        assert_eq!(known, described, "{}: what serde knows and what is described", description.name);
    }
}

/// A key without a default must be given, and the defaults that are described are those that hold.
#[test]
fn described_defaults_are_true() {
    for description in descriptions().into_iter().filter(|description| description.kind == Kind::Code) {
        let required: Vec<_> = description.config.iter().filter(|key| key.default.is_none()).collect();
        let bare = build(&spec(&description.name, json!({})));
        if let Some(key) = required.first() {
            let error = bare.unwrap_err().to_string();
            assert!(error.contains(&format!("missing field `{}`", key.name)), "{}: {error}", description.name);
        } else if description.name != "length_bounds" {
            let defaults: serde_json::Map<String, Value> =
                description.config.iter().map(|key| (key.name.to_string(), key.default.clone().unwrap())).collect();
            assert!(bare.is_ok(), "{}", description.name);
            build(&spec(&description.name, Value::Object(defaults))).unwrap();
        }
    }
}

/// A configuration that makes no sense fails before the first example, and says which key.
#[test]
fn bad_configurations_are_refused() {
    let rows = [
        ("contains", json!({"words": []}), "words"),
        ("contains", json!({"words": 5}), "config"),
        ("regex", json!({"pattern": "("}), "pattern"),
        ("regex", json!({"pattern": "(?=x)"}), "pattern"),
        ("regex", json!({"pattern": "a)|(b", "full_match": true}), "pattern"),
        ("regex", json!({"pattern": "(a{1000}){1000}"}), "pattern"),
        ("regex", json!({"pattern": "a".repeat(5000)}), "pattern"),
        ("levenshtein", json!({"measure": "x"}), "ratio"),
        ("json_schema", json!({"schema": {"type": "nonsense"}}), "schema"),
        ("json_schema", json!({"schema": {"$ref": "http://127.0.0.1/x.json"}}), "schema"),
        ("json_schema", json!({"schema": {"$ref": "file:///etc/passwd"}}), "schema"),
        ("length_bounds", json!({}), "min, max"),
        ("length_bounds", json!({"min": 3, "max": 2}), "min"),
        ("length_bounds", json!({"min": -1}), "invalid value"),
        ("repetition", json!({"n": 5}), "n:"),
        ("pii_pattern", json!({"kinds": []}), "kinds"),
        ("pii_pattern", json!({"kinds": ["x"]}), "email"),
        ("toxicity_words", json!({"shipped": false}), "words"),
        ("language", json!({"expected": "xx"}), "expected"),
        ("language", json!({"expected": []}), "expected"),
        ("language", json!({"expected": "en", "min_confidence": 2}), "min_confidence"),
        ("finish_reason_ok", json!({"allowed": []}), "allowed"),
        ("tool_args_schema", json!({"schemas": {}}), "schemas"),
        ("latency_budget", json!({"max_ms": -1}), "max_ms"),
        ("precision_recall_f", json!({"beta": 0}), "beta"),
        ("precision_recall_f", json!({"average": "samples"}), "macro"),
    ];
    for (name, config, says) in rows {
        let error = build(&spec(name, config.clone())).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(says), "{name} {config}: {error}");
    }
}

/// Seconds that this thread has been on a processor: wall time would count what others do meanwhile.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Ten megabytes, of the kinds that make naive algorithms quadratic, are judged or refused in bounded time.
#[test]
fn ten_megabytes_do_not_hang() {
    let long = 10_000_000;
    let texts = [
        "a".repeat(long),
        "1 ".repeat(long / 2),
        "[{\"a\":".repeat(long / 6),
        "a@a.".repeat(long / 40),
        "é\n".repeat(long / 30),
    ];
    for description in descriptions().into_iter().filter(|description| description.kind == Kind::Code) {
        let config = match description.name.as_str() {
            "contains" => json!({"words": ["aaaa", "aaa", "zz"], "require_all": true}),
            "regex" => json!({"pattern": ".*[^A-Z]|[A-Z]"}),
            "json_schema" => json!({"schema": {"type": "array", "uniqueItems": true}}),
            "length_bounds" => json!({"min": 1, "unit": "words"}),
            "language" => json!({"expected": "en"}),
            "tool_args_schema" => json!({"schemas": {"a": {}}}),
            "latency_budget" => json!({"max_ms": 1}),
            "cost_budget" => json!({"max_usd": 1}),
            "token_budget" => json!({"max_tokens": 1}),
            _ => json!({}),
        };
        let evaluator = built(&description.name, config);
        for (at, text) in texts.iter().enumerate() {
            let mut reference = texts[(at + 1) % texts.len()].clone();
            reference.truncate(reference.floor_char_boundary(9_000_000));
            let judged = example(json!({"output": text, "reference": reference}));
            let began = cpu_seconds();
            let outcome = evaluator.run(&judged);
            let took = cpu_seconds() - began;
            // Not optimized; the longest, bleu, counts forty million runs of words.
            assert!(took < 15.0, "{} took {took} s on text {at}: {:?}", description.name, outcome.result);
        }
    }
    // And what is larger than a field may be is refused before anything is done.
    let judged = example(json!({"output": "a".repeat(17 << 20), "reference": "a"}));
    assert_eq!(class(&built("levenshtein_ratio", json!({})).run(&judged)), Class::TooLarge);
    let pair = example(json!({"output": "ab".repeat(200_000), "reference": "ba".repeat(200_000)}));
    assert_eq!(class(&built("levenshtein_ratio", json!({})).run(&pair)), Class::TooLarge, "past the cap of pairs");
}
