//! The shape in which Phoenix keeps examples: three objects and an id of ours.
//!
//! Promise: [`from_phoenix`] gives back what [`to_phoenix`] was given. Fields keep their type's names, so that a prompt in Phoenix can
//! name `{{question}}`: what goes in (and the context) under `input`, what came or should come out under `output`.
//! A dataset that others made has other names. As custom, its whole input is the input, its whole output the reference, which is
//! what Phoenix means by the output of an example.

use serde_json::{Map, Value};

use crate::example::{Example, FieldOf, Role, Row, Type};

/// An example as Phoenix keeps it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Our id.
    pub id: String,
    /// What goes in.
    pub input: Map<String, Value>,
    /// What came out, and what would have been right.
    pub output: Map<String, Value>,
    /// Whatever else is known.
    pub metadata: Map<String, Value>,
}

fn goes_in(field: &FieldOf) -> bool {
    matches!(field.role, Role::Input | Role::Context)
}

/// An example of this type in Phoenix's shape.
#[must_use]
pub fn to_phoenix(r#type: Type, example: &Example) -> Shape {
    let mut shape = Shape { id: example.id.clone(), metadata: example.metadata.clone(), ..Shape::default() };
    for field in r#type.fields() {
        if let Some(value) = example.at(field.role) {
            let side = if goes_in(field) { &mut shape.input } else { &mut shape.output };
            side.insert(field.name.to_owned(), value.clone());
        }
    }
    shape
}

/// An example of this type out of Phoenix's shape; else what is wrong, as field and what.
pub fn from_phoenix(r#type: Type, shape: Shape) -> Result<Example, Vec<(String, String)>> {
    let known = |side: &Map<String, Value>, is_input: bool| {
        let has = |name: &String| r#type.fields().iter().any(|field| field.name == name && goes_in(field) == is_input);
        side.keys().all(has)
    };
    let is_ours = known(&shape.input, true)
        && known(&shape.output, false)
        && r#type.fields().iter().filter(|field| field.required).all(|field| {
            let side = if goes_in(field) { &shape.input } else { &shape.output };
            side.get(field.name).is_some_and(|value| !value.is_null())
        });
    if r#type == Type::Custom && !is_ours {
        let reference = (!shape.output.is_empty()).then(|| shape.output.into());
        let (id, input, metadata) = (shape.id, shape.input.into(), shape.metadata);
        return Ok(Example { id, input, reference, metadata, ..Example::default() });
    }
    let mut row: Row = shape.input;
    row.extend(shape.output);
    row.insert("id".to_owned(), shape.id.into());
    row.insert("metadata".to_owned(), shape.metadata.into());
    let mut faults = Vec::new();
    let example = r#type.example(row, &mut |field, what| faults.push((field.to_owned(), what)));
    if faults.is_empty() { Ok(example) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Phoenix's own datasets can be judged too: as custom ones.
    #[test]
    fn a_dataset_of_others_is_a_custom_one() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let shape = Shape {
            id: "e".into(),
            input: object(json!({ "messages": [] })),
            output: object(json!({ "answer": 1 })),
            metadata: Map::new(),
        };
        let example = from_phoenix(Type::Custom, shape.clone()).unwrap();
        assert_eq!(example.input, json!({ "messages": [] }));
        assert_eq!((example.reference, example.output), (Some(json!({ "answer": 1 })), None));
        let faults = from_phoenix(Type::QaPairs, shape).unwrap_err();
        assert!(faults.contains(&("question".into(), "is missing".into())), "{faults:?}");
        assert!(faults.contains(&("messages".into(), "is no field of qa_pairs".into())), "{faults:?}");
    }
}
