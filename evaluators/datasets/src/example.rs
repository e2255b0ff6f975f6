//! The four types of examples, and the one form that evaluators see.
//!
//! Promise: an example that passes [`validate`] has what its type asks for and an id of its own. An id that was not given is made
//! out of the content (UUIDv5), so the same rows get the same ids everywhere; the second of two equal rows gets `-2` behind it.
//! `null` is as good as absent, in every field.
//! Kept by: the tests below, `tests/round_trip.rs`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::fault::{Fault, Faults};

/// A row as files and requests hold it: fields by their type's names.
pub type Row = Map<String, Value>;

/// Characters in an id.
const ID_CHARS_MAX: usize = 255;

/// The space of the ids that are made out of content. Changing it changes the id of every example that was given none.
const IDS: Uuid = Uuid::from_u128(0x3f6f_2f6b_9b0a_5d0e_8d51_6f0f_5c3e_a7d4);

/// What kind of rows a dataset holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// {question, answer}: input and reference, both text.
    QaPairs,
    /// {prompt, completion}: input and output, both text.
    Completions,
    /// {text, label}: input and reference, both text.
    Classifications,
    /// {input, output?, reference?, context?}: any JSON.
    Custom,
}

/// An example, whatever its type, as evaluators see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Its id, unlike any other of the dataset; 1 to 255 characters, none of them a control character.
    pub id: String,
    /// What goes in.
    pub input: Value,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// What would have been right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Value>,
    /// What the answer should rest on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// Whatever else is known. Every type may have it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

impl Example {
    /// What is judged when no model is asked: the output, or where the type has none, the answer that the row gives.
    #[must_use]
    pub fn recorded(&self) -> Option<&Value> {
        self.output.as_ref().or(self.reference.as_ref())
    }

    fn place(&mut self, role: Role, value: Value) {
        match role {
            Role::Input => self.input = value,
            Role::Output => self.output = Some(value),
            Role::Reference => self.reference = Some(value),
            Role::Context => self.context = Some(value),
        }
    }

    pub(crate) fn at(&self, role: Role) -> Option<&Value> {
        match role {
            Role::Input => Some(&self.input),
            Role::Output => self.output.as_ref(),
            Role::Reference => self.reference.as_ref(),
            Role::Context => self.context.as_ref(),
        }
    }

    /// The id of this content, whatever id it has.
    #[must_use]
    pub fn content_id(&self) -> String {
        let parts = [Some(&self.input), self.output.as_ref(), self.reference.as_ref(), self.context.as_ref()];
        let mut text = String::new();
        for part in parts {
            match part {
                Some(value) => canonical(value, &mut text),
                None => text.push('-'),
            }
            text.push('\n');
        }
        canonical_map(&self.metadata, &mut text);
        Uuid::new_v5(&IDS, text.as_bytes()).to_string()
    }
}

/// JSON with its keys in order, whatever order they came in.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => canonical_map(fields, text),
        Value::Array(values) => {
            text.push('[');
            for value in values {
                canonical(value, text);
                text.push(',');
            }
            text.push(']');
        }
        leaf => text.push_str(&leaf.to_string()),
    }
}

fn canonical_map(fields: &Map<String, Value>, text: &mut String) {
    let mut keys: Vec<_> = fields.iter().collect();
    keys.sort_unstable_by_key(|(key, _)| key.as_str());
    text.push('{');
    for (key, value) in keys {
        text.push_str(&Value::from(key.as_str()).to_string());
        text.push(':');
        canonical(value, text);
        text.push(',');
    }
    text.push('}');
}

/// What a field of a type is to evaluators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Input,
    Output,
    Reference,
    Context,
}

/// A field of a type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldOf {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) required: bool,
    /// Only text, or any JSON.
    pub(crate) text: bool,
}

const fn text(name: &'static str, role: Role) -> FieldOf {
    FieldOf { name, role, required: true, text: true }
}

const fn any(name: &'static str, role: Role, required: bool) -> FieldOf {
    FieldOf { name, role, required, text: false }
}

const QA_PAIRS: [FieldOf; 2] = [text("question", Role::Input), text("answer", Role::Reference)];
const COMPLETIONS: [FieldOf; 2] = [text("prompt", Role::Input), text("completion", Role::Output)];
const CLASSIFICATIONS: [FieldOf; 2] = [text("text", Role::Input), text("label", Role::Reference)];
const CUSTOM: [FieldOf; 4] = [
    any("input", Role::Input, true),
    any("output", Role::Output, false),
    any("reference", Role::Reference, false),
    any("context", Role::Context, false),
];

impl Type {
    /// All types.
    pub const ALL: [Self; 4] = [Self::QaPairs, Self::Completions, Self::Classifications, Self::Custom];

    /// As the database and the API write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QaPairs => "qa_pairs",
            Self::Completions => "completions",
            Self::Classifications => "classifications",
            Self::Custom => "custom",
        }
    }

    /// Its fields beside `id` and `metadata`.
    pub(crate) fn fields(self) -> &'static [FieldOf] {
        match self {
            Self::QaPairs => &QA_PAIRS,
            Self::Completions => &COMPLETIONS,
            Self::Classifications => &CLASSIFICATIONS,
            Self::Custom => &CUSTOM,
        }
    }

    /// An example as a row of this type. What the type has no field for is left out.
    #[must_use]
    pub fn row(self, example: &Example) -> Row {
        let mut row = Row::new();
        row.insert("id".to_owned(), example.id.as_str().into());
        for field in self.fields() {
            if let Some(value) = example.at(field.role) {
                row.insert(field.name.to_owned(), value.clone());
            }
        }
        if !example.metadata.is_empty() {
            row.insert("metadata".to_owned(), example.metadata.clone().into());
        }
        row
    }

    /// A row as an example, its id empty if it has none; what is wrong is said to `fault`, as field and what.
    pub(crate) fn example(self, mut row: Row, fault: &mut dyn FnMut(&str, String)) -> Example {
        let mut example = Example::default();
        match row.remove("id") {
            None | Some(Value::Null) => {}
            Some(Value::String(id)) => match unfit_id(&id) {
                None => example.id = id,
                Some(what) => fault("id", what),
            },
            Some(Value::Number(id)) if !id.is_f64() => example.id = id.to_string(),
            Some(other) => fault("id", format!("must be text, is {}", kind(&other))),
        }
        for field in self.fields() {
            match row.remove(field.name).filter(|value| !value.is_null()) {
                Some(value) if !field.text || value.is_string() => example.place(field.role, value),
                Some(other) => fault(field.name, format!("must be text, is {}", kind(&other))),
                None if field.required => fault(field.name, "is missing".to_owned()),
                None => {}
            }
        }
        match row.remove("metadata") {
            None | Some(Value::Null) => {}
            Some(Value::Object(metadata)) => example.metadata = metadata,
            Some(other) => fault("metadata", format!("must be an object, is {}", kind(&other))),
        }
        for name in row.keys() {
            fault(name, format!("is no field of {}", self.name()));
        }
        example
    }
}

impl std::str::FromStr for Type {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|r#type| r#type.name() == name);
        found.ok_or_else(|| format!("{name:?} is none of qa_pairs, completions, classifications, custom"))
    }
}

fn unfit_id(id: &str) -> Option<String> {
    if id.is_empty() {
        Some("must not be empty".to_owned())
    } else if id.chars().count() > ID_CHARS_MAX {
        Some(format!("must not be longer than {ID_CHARS_MAX} characters"))
    } else if id.chars().any(char::is_control) {
        Some("must not hold control characters".to_owned())
    } else {
        None
    }
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Rows of a request, such as a dataset's `data`, as examples; or what is wrong with them, of which `faults_max` are listed.
pub fn validate(r#type: Type, rows: &[Value], faults_max: usize) -> Result<Vec<Example>, Faults> {
    let mut gather = Gather::new(r#type, faults_max);
    for (index, row) in rows.iter().enumerate() {
        gather.take(index + 1, None, row.clone());
    }
    gather.finish()
}

/// Rows on their way to become examples.
pub(crate) struct Gather {
    r#type: Type,
    faults_max: usize,
    faults: Faults,
    examples: Vec<Example>,
    /// Which row has which id.
    ids: HashMap<String, usize>,
}

impl Gather {
    pub(crate) fn new(r#type: Type, faults_max: usize) -> Self {
        Self { r#type, faults_max, faults: Faults::default(), examples: Vec::new(), ids: HashMap::new() }
    }

    pub(crate) fn fault(&mut self, row: usize, line: Option<u64>, field: Option<&str>, what: String) {
        self.faults.add(self.faults_max, Fault { row, line, field: field.map(str::to_owned), what });
    }

    pub(crate) fn take(&mut self, row: usize, line: Option<u64>, value: Value) {
        let Value::Object(fields) = value else {
            return self.fault(row, line, None, format!("must be an object, is {}", kind(&value)));
        };
        let (faults, max) = (&mut self.faults, self.faults_max);
        let mut fault = |field: &str, what| faults.add(max, Fault { row, line, field: Some(field.to_owned()), what });
        let example = self.r#type.example(fields, &mut fault);
        if !example.id.is_empty() {
            match self.ids.entry(example.id.clone()) {
                Entry::Occupied(first) => fault("id", format!("is that of row {} too", first.get())),
                Entry::Vacant(place) => drop(place.insert(row)),
            }
        }
        // What is not going to be handed out need not be kept.
        if self.faults.is_empty() {
            self.examples.push(example);
        } else {
            self.examples = Vec::new();
        }
    }

    pub(crate) fn finish(mut self) -> Result<Vec<Example>, Faults> {
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        let mut times: HashMap<String, usize> = HashMap::new();
        for (index, example) in self.examples.iter_mut().enumerate() {
            if !example.id.is_empty() {
                continue;
            }
            let content = example.content_id();
            let time = times.entry(content.clone()).or_default();
            example.id = loop {
                *time += 1;
                let id = if *time == 1 { content.clone() } else { format!("{content}-{time}") };
                if let Entry::Vacant(place) = self.ids.entry(id.clone()) {
                    place.insert(index + 1);
                    break id;
                }
            };
        }
        Ok(self.examples)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(r#type: Type, rows: Value) -> Vec<String> {
        let faults = validate(r#type, rows.as_array().unwrap(), 5).unwrap_err();
        let mut said: Vec<_> = faults.listed.iter().map(ToString::to_string).collect();
        if faults.more > 0 {
            said.push(format!("+{}", faults.more));
        }
        said
    }

    /// Each type is seen as input, output, reference, context and metadata.
    #[test]
    fn each_type_is_seen_in_one_form() {
        let seen = |r#type, row| validate(r#type, &[row], 1).unwrap().remove(0);
        let qa = seen(Type::QaPairs, json!({ "id": "a", "question": "q", "answer": "" }));
        assert_eq!((qa.input.clone(), qa.output.clone(), qa.reference.clone()), (json!("q"), None, Some(json!(""))));
        assert_eq!(qa.recorded(), Some(&json!("")));
        let completion =
            seen(Type::Completions, json!({ "id": 7, "prompt": "p", "completion": "c", "metadata": null }));
        assert_eq!((completion.id.as_str(), completion.output), ("7", Some(json!("c"))));
        let class = seen(Type::Classifications, json!({ "text": "t", "label": "l", "metadata": { "k": 1 } }));
        assert_eq!((class.reference, class.metadata["k"].clone()), (Some(json!("l")), json!(1)));
        let custom = seen(Type::Custom, json!({ "input": { "a": [1] }, "output": null, "context": ["d"] }));
        assert_eq!((custom.input, custom.output, custom.context), (json!({ "a": [1] }), None, Some(json!(["d"]))));
    }

    /// All that is wrong is said, with row and field, up to the bound, and then counted.
    #[test]
    fn all_that_is_wrong_is_said() {
        let rows = json!([
            { "question": 1, "answer": "a" }, "text", { "id": "x", "question": "q", "answer": "a", "topic": "t" },
            { "id": "x", "question": "q" }, { "id": "", "question": "q", "answer": "a", "metadata": [] },
        ]);
        assert_eq!(
            said(Type::QaPairs, rows),
            [
                "row 1, question: must be text, is a number",
                "row 2: must be an object, is text",
                "row 3, topic: is no field of qa_pairs",
                "row 4, answer: is missing",
                "row 4, id: is that of row 3 too",
                "+2",
            ]
        );
        assert_eq!(said(Type::Custom, json!([{ "output": 1 }])), ["row 1, input: is missing"]);
        assert_eq!(
            said(Type::Custom, json!([{ "input": 1, "id": "a\0" }])),
            ["row 1, id: must not hold control characters"]
        );
    }

    /// Ids come from the content alone, whatever the order of keys; equal rows are told apart; a given id is never taken.
    #[test]
    fn an_id_that_was_not_given_is_stable() {
        let rows = json!([{ "input": { "a": 1, "b": 2 } }, { "input": { "b": 2, "a": 1 } }, { "input": "other" }]);
        let rows = rows.as_array().unwrap();
        let ids = |rows: &[Value]| -> Vec<_> {
            validate(Type::Custom, rows, 1).unwrap().into_iter().map(|example| example.id).collect()
        };
        let first = ids(rows);
        // As Python's uuid.uuid5 has it, of the lines {"a":1,"b":2,} - - - {}.
        assert_eq!(first[0], "4c1041d7-db13-5f36-96de-292b674b74be");
        assert_eq!(first[1], format!("{}-2", first[0]));
        assert_ne!(first[2], first[0]);
        assert_eq!(ids(rows), first);
        let taken = json!({ "id": format!("{}-2", first[0]), "input": "taken" });
        let with_taken = [rows[0].clone(), rows[1].clone(), taken];
        assert_eq!(ids(&with_taken)[1], format!("{}-3", first[0]));
    }
}
