//! Examples of datasets and rows of traces, as evaluators see them.
//!
//! | from | input | output | reference |
//! |---|---|---|---|
//! | qa_pairs {question, answer} | question | output, where given | answer |
//! | completions {prompt, completion} | prompt | output, where given | completion |
//! | classifications {text, label} | text | output, where given | label |
//! | custom {input, output?, reference?, context?, messages?, metadata?} | input | output | reference |
//!
//! `context`, `messages` and `metadata` are taken from all of them; keys without a meaning go into the metadata. Where no output is
//! recorded and no model runs the prompt, what the dataset holds as the answer is judged as it stands: output is then the reference too.

use emberd_evaluators_kit::Example;
use emberd_store::jobs::{DatasetType, NewTarget};
use emberd_store::library::Trace;
use serde_json::{Map, Value, json};

/// The longest id that an example may have.
const ID_BYTES_MAX: usize = 256;

/// An example of a dataset, with its id: its own, or its place.
pub(crate) fn of_dataset(kind: DatasetType, nr: i64, body: Value, is_run: bool) -> NewTarget {
    let Value::Object(mut body) = body else {
        // Bare values are inputs.
        let example = Example { input: body, ..Example::default() };
        return target(nr, nr.to_string(), &example);
    };
    let id = match body.remove("id") {
        Some(Value::String(id)) if (1..=ID_BYTES_MAX).contains(&id.len()) => id,
        Some(Value::Number(id)) => id.to_string(),
        _ => nr.to_string(),
    };
    let (input, reference) = match kind {
        DatasetType::QaPairs => ("question", "answer"),
        DatasetType::Completions => ("prompt", "completion"),
        DatasetType::Classifications => ("text", "label"),
        DatasetType::Custom => ("input", "reference"),
    };
    let mut take = |key: &str| body.remove(key).unwrap_or(Value::Null);
    let (input, reference, output) = (take(input), take(reference), take("output"));
    let (context, messages, metadata) = (take("context"), take("messages"), take("metadata"));
    let mut metadata = match metadata {
        Value::Object(metadata) => metadata,
        Value::Null => Map::new(),
        other => Map::from_iter([("metadata".to_owned(), other)]),
    };
    for (key, value) in body {
        metadata.entry(key).or_insert(value);
    }
    let output = if output.is_null() && !is_run && kind != DatasetType::Custom { reference.clone() } else { output };
    target(nr, id, &Example { input, output, reference, context, messages, metadata, trace: None })
}

/// A row of a trace: what a person put in and got out, and all that the row knows beside.
pub(crate) fn of_trace(nr: i64, row: &Trace) -> NewTarget {
    let parse = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let mut metadata = parse(row.metadata.get());
    let tokens = parse(row.tokens_used.get());
    let input = metadata.remove("input").unwrap_or(Value::Null);
    let output = metadata.remove("output").unwrap_or(Value::Null);
    if let Some(cost) = metadata.get("cost").and_then(|cost| cost.get("total")).cloned() {
        metadata.insert("cost_usd".into(), cost);
    }
    if let Some(total) = tokens.get("total").cloned() {
        metadata.insert("total_tokens".into(), total);
    }
    metadata.insert("tokens".into(), Value::Object(tokens));
    metadata.insert("latency_ms".into(), json!(row.execution_time_ms));
    metadata.insert("model".into(), json!(row.model));
    metadata.insert("status".into(), json!(row.status));
    metadata.insert("trace_id".into(), json!(row.phoenix_trace_id));
    let example = Example { input, output, metadata, ..Example::default() };
    target(nr, row.phoenix_trace_id.clone(), &example)
}

fn target(nr: i64, target: String, example: &Example) -> NewTarget {
    NewTarget { nr, target, body: serde_json::to_string(example).unwrap_or_else(|_| "null".to_owned()) }
}

/// What the evaluators of a target see: its body, with what the run step gave.
pub(crate) fn seen(body: &str, output: Option<&str>) -> Example {
    let mut example: Example = serde_json::from_str(body).unwrap_or_default();
    let output = output.and_then(|output| serde_json::from_str(output).ok());
    if let Some(Value::Object(mut run)) = output {
        example.output = run.remove("output").unwrap_or(Value::Null);
        if let Some(Value::Object(metadata)) = run.remove("metadata") {
            example.metadata.extend(metadata);
        }
    }
    example
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(kind: DatasetType, body: Value, is_run: bool) -> (String, Example) {
        let target = of_dataset(kind, 7, body, is_run);
        (target.target, seen(&target.body, None))
    }

    #[test]
    fn each_type_has_its_words_for_input_and_reference() {
        let (id, qa) = example(DatasetType::QaPairs, json!({"question": "q", "answer": "a", "hint": 1}), true);
        assert_eq!((id.as_str(), &qa.input, &qa.reference, &qa.output), ("7", &json!("q"), &json!("a"), &Value::Null));
        assert_eq!(qa.metadata["hint"], json!(1));
        let (id, label) = example(DatasetType::Classifications, json!({"id": "x", "text": "t", "label": "l"}), false);
        assert_eq!((id.as_str(), &label.output), ("x", &json!("l")), "without a run, what stands is judged");
        let (id, custom) = example(DatasetType::Custom, json!({"id": 3, "input": {"a": 1}, "reference": "r"}), false);
        assert_eq!((id.as_str(), &custom.output), ("3", &Value::Null), "a custom example without output has none");
    }

    #[test]
    fn a_run_stands_in_place_of_what_was_recorded() {
        let target =
            of_dataset(DatasetType::Custom, 0, json!({"input": "i", "output": "old", "metadata": {"k": 1}}), true);
        let run = json!({"output": "new", "metadata": {"latency_ms": 5}}).to_string();
        let seen = seen(&target.body, Some(&run));
        assert_eq!(
            (&seen.output, &seen.metadata["k"], &seen.metadata["latency_ms"]),
            (&json!("new"), &json!(1), &json!(5))
        );
    }
}
