//! A job's targets as Phoenix's examples: under their type's names, so that a prompt in Phoenix can name `{{question}}`.

use emberd_evaluators_kit::Example;
use emberd_phoenix::datasets::Item;
use emberd_store::jobs::{DatasetType, Target};
use serde_json::{Map, Value};

/// The names of input and reference.
fn names(kind: DatasetType) -> (&'static str, &'static str) {
    match kind {
        DatasetType::QaPairs => ("question", "answer"),
        DatasetType::Completions => ("prompt", "completion"),
        DatasetType::Classifications => ("text", "label"),
        DatasetType::Custom => ("input", "reference"),
    }
}

/// What was judged, as an example under its stable id.
pub(super) fn item(kind: DatasetType, target: &Target) -> Item {
    let example = Example::deserialize(&target.body).unwrap_or_default();
    let (input, reference) = names(kind);
    let mut item = Item { id: target.target.clone(), metadata: example.metadata, ..Item::default() };
    put(&mut item.input, input, example.input);
    put(&mut item.input, "context", example.context);
    put(&mut item.output, "messages", example.messages);
    // Where nothing was recorded beside it, the reference stands for both.
    if example.output != example.reference {
        put(&mut item.output, "output", example.output);
    }
    put(&mut item.output, reference, example.reference);
    item
}

fn put(side: &mut Map<String, Value>, name: &str, value: Value) {
    if !value.is_null() {
        side.insert(name.to_owned(), value);
    }
}

use serde::Deserialize as _;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The same names as the dataset's own export to Phoenix has.
    #[test]
    fn fields_keep_their_types_names() {
        let body = json!({"input": "q", "output": "a", "reference": "a", "context": ["c"], "metadata": {"k": 1}});
        let item = item(DatasetType::QaPairs, &Target { nr: 0, target: "e1".into(), body });
        assert_eq!(json!(item.input), json!({"question": "q", "context": ["c"]}));
        assert_eq!((json!(item.output), item.metadata["k"].clone()), (json!({"answer": "a"}), json!(1)));
    }
}
