//! An example out of a recorded trace: a row of `prompt_traces`, in JSON.
//!
//! Promise: the id is the trace's, so that the same trace is the same example, whoever asks. Input and output are what the row's
//! metadata has of them: there only if they are recorded (`recorder.texts`), and their first 4 KiB then.

use serde_json::{Map, Value};

use crate::example::Example;

/// No example can be made of the row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoExample {
    /// It does not say which trace it is.
    #[error("the row has no trace id")]
    NoTrace,
    /// Its input was not recorded.
    #[error("the input of trace {trace} was not recorded")]
    NoInput {
        /// The trace.
        trace: String,
    },
}

/// What goes from the row's own metadata into the example's.
const KEPT: [&str; 9] =
    ["cost", "finish_reason", "provider", "session_id", "prompt_version", "tool_calls", "ttft_ms", "tags", "marks"];

/// What goes from the row into the example's metadata, and under which name.
const COLUMNS: [(&str, &str); 5] = [
    ("prompt_id", "prompt_id"),
    ("model", "model"),
    ("status", "status"),
    ("execution_time_ms", "latency_ms"),
    ("tokens_used", "tokens"),
];

/// The example that a row is. JSON columns may also be their text, as SQLite has them.
pub fn example_of(row: &Map<String, Value>) -> Result<Example, NoExample> {
    let trace = ["phoenix_trace_id", "trace_id"].iter().find_map(|key| row.get(*key)?.as_str());
    let trace = trace.filter(|trace| !trace.is_empty()).ok_or(NoExample::NoTrace)?;
    let json = |value: &Value| match value {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
        other => other.clone(),
    };
    let recorded = match row.get("metadata").map(json) {
        Some(Value::Object(recorded)) => recorded,
        _ => Map::new(),
    };
    let there = |value: &&Value| !value.is_null();
    let input = recorded.get("input").filter(there);
    let input = input.ok_or_else(|| NoExample::NoInput { trace: trace.to_owned() })?;
    let mut metadata = Map::new();
    for (column, name) in COLUMNS {
        if let Some(value) = row.get(column).filter(there) {
            metadata.insert(name.to_owned(), if column == "tokens_used" { json(value) } else { value.clone() });
        }
    }
    for key in KEPT {
        if let Some(value) = recorded.get(key).filter(there) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    Ok(Example {
        id: trace.to_owned(),
        input: input.clone(),
        output: recorded.get("output").filter(there).cloned(),
        reference: None,
        context: None,
        metadata,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A row gives its example, as PostgreSQL and as SQLite hold it; what was not recorded is said.
    #[test]
    fn a_recorded_trace_is_an_example() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let mut row = json!({
            "phoenix_trace_id": trace, "model": "gpt-4o", "execution_time_ms": 120, "status": "success", "error": null,
            "tokens_used": { "prompt": 1, "completion": 2, "total": 3 },
            "metadata": { "input": "q", "output": "a", "finish_reason": "stop", "spans": 3 },
        });
        let example = example_of(row.as_object().unwrap()).unwrap();
        assert_eq!((example.id.as_str(), &example.input, &example.output), (trace, &json!("q"), &Some(json!("a"))));
        let metadata = json!({
            "model": "gpt-4o", "latency_ms": 120, "status": "success", "finish_reason": "stop",
            "tokens": { "prompt": 1, "completion": 2, "total": 3 },
        });
        assert_eq!(Value::from(example.metadata.clone()), metadata);
        for key in ["metadata", "tokens_used"] {
            row[key] = row[key].to_string().into();
        }
        assert_eq!(example_of(row.as_object().unwrap()), Ok(example));
        row["metadata"] = json!({ "output": "a" });
        assert_eq!(example_of(row.as_object().unwrap()), Err(NoExample::NoInput { trace: trace.into() }));
        assert_eq!(example_of(&Map::new()), Err(NoExample::NoTrace));
    }
}
