//! Which column of a file is which field, and what becomes of the others.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::example::{Role, Row, Type};

/// Which column of the file is which field. None: the column that has the type's own name, such as `question`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// The id.
    pub id: Option<String>,
    /// What goes in: input, question, prompt, text.
    pub input: Option<String>,
    /// What came out: output, completion.
    pub output: Option<String>,
    /// What would have been right: reference, answer, label.
    pub reference: Option<String>,
    /// What the answer should rest on; of custom datasets only.
    pub context: Option<String>,
    /// An object, or the JSON text of one.
    pub metadata: Option<String>,
    /// What becomes of columns that are no field.
    pub extra: Extra,
}

/// What becomes of columns that are no field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extra {
    /// Each is an error: a column that is spelled wrong is not lost silently.
    #[default]
    Refuse,
    /// They are left out.
    Ignore,
    /// They go into `metadata`, under their own names.
    Metadata,
}

/// What values a format can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cells {
    /// JSON itself.
    Json,
    /// Nothing but text, after the rule of [`cell`](crate::cell).
    Text,
    /// Values of their own types; an object may also come as JSON text.
    Typed,
}

/// One field: its name in the type, its column in the file.
struct Bound<'a> {
    field: &'static str,
    column: &'a str,
    text: bool,
    required: bool,
}

/// Columns, bound to a type.
pub(crate) struct Binding<'a> {
    fields: Vec<Bound<'a>>,
    extra: Extra,
    cells: Cells,
}

impl Columns {
    fn of(&self, role: Role) -> Option<&str> {
        match role {
            Role::Input => self.input.as_deref(),
            Role::Output => self.output.as_deref(),
            Role::Reference => self.reference.as_deref(),
            Role::Context => self.context.as_deref(),
        }
    }

    /// What is named here and cannot be: a field that the type has not, one column for two fields.
    pub(crate) fn bind(&self, r#type: Type, cells: Cells) -> Result<Binding<'_>, String> {
        for (role, name) in [(Role::Output, "output"), (Role::Reference, "reference"), (Role::Context, "context")] {
            let has = r#type.fields().iter().any(|field| field.role == role);
            if let (Some(column), false) = (self.of(role), has) {
                return Err(format!("column {column:?} is named for {name}, which {} has not", r#type.name()));
            }
        }
        let mut fields = vec![Bound {
            field: "id",
            column: self.id.as_deref().unwrap_or("id"),
            text: true,
            required: self.id.is_some(),
        }];
        fields.extend(r#type.fields().iter().map(|field| {
            let named = self.of(field.role);
            let required = field.required || named.is_some();
            Bound { field: field.name, column: named.unwrap_or(field.name), text: field.text, required }
        }));
        let metadata = self.metadata.as_deref();
        let column = metadata.unwrap_or("metadata");
        fields.push(Bound { field: "metadata", column, text: false, required: metadata.is_some() });
        for (index, one) in fields.iter().enumerate() {
            if let Some(other) = fields[..index].iter().find(|other| other.column == one.column) {
                return Err(format!("column {:?} is named for both {} and {}", one.column, other.field, one.field));
            }
        }
        Ok(Binding { fields, extra: self.extra, cells })
    }
}

impl Binding<'_> {
    /// What is wrong with a file that has these columns and no others.
    pub(crate) fn check_header(&self, header: &[String]) -> Result<(), String> {
        let list = || header.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        for (index, name) in header.iter().enumerate() {
            if header[..index].contains(name) {
                return Err(format!("the column {name:?} is there twice"));
            }
            let known = self.fields.iter().any(|field| field.column == name);
            if !known && self.extra == Extra::Refuse {
                let fields: Vec<_> = self.fields.iter().map(|field| field.column).collect();
                return Err(format!("the column {name:?} is none of {}", fields.join(", ")));
            }
        }
        match self.fields.iter().find(|field| field.required && !header.iter().any(|name| name == field.column)) {
            Some(lacking) => Err(format!("there is no column {:?}, only {}", lacking.column, list())),
            None => Ok(()),
        }
    }

    /// Whether anything becomes of the values of this column.
    pub(crate) fn wants(&self, column: &str) -> bool {
        self.extra != Extra::Ignore || self.fields.iter().any(|field| field.column == column)
    }

    /// A row under the type's names; what is wrong with one of its columns is said to `fault`.
    pub(crate) fn row(&self, mut raw: Row, fault: &mut dyn FnMut(&str, String)) -> Row {
        let mut row = Row::new();
        for field in &self.fields {
            let Some(value) = raw.remove(field.column) else { continue };
            match self.value(field, value) {
                Ok(Some(value)) => drop(row.insert(field.field.to_owned(), value)),
                Ok(None) => {}
                Err(what) => fault(field.column, what),
            }
        }
        match self.extra {
            Extra::Ignore => {}
            // The type says of each that it is no field.
            Extra::Refuse => row.extend(raw),
            Extra::Metadata if raw.is_empty() => {}
            Extra::Metadata => {
                let metadata = row.entry("metadata").or_insert_with(|| Row::new().into());
                if metadata.is_null() {
                    *metadata = Row::new().into();
                }
                if let Value::Object(metadata) = metadata {
                    for (name, value) in raw {
                        // An empty cell, or a column of Parquet that has no value here.
                        if value.is_null() || (self.cells == Cells::Text && value == "") {
                            continue;
                        }
                        metadata.entry(name).or_insert(value);
                    }
                }
            }
        }
        row
    }

    fn value(&self, field: &Bound<'_>, value: Value) -> Result<Option<Value>, String> {
        match (self.cells, value) {
            (Cells::Json, value) => Ok(Some(value)),
            (Cells::Text | Cells::Typed, Value::String(text)) if field.field == "metadata" => {
                if text.is_empty() {
                    return Ok(None);
                }
                let object = serde_json::from_str(&text).map(Value::Object);
                object.map(Some).map_err(|_| "must be an object in JSON".to_owned())
            }
            (Cells::Text, Value::String(id)) if field.field == "id" => Ok((!id.is_empty()).then(|| id.into())),
            (Cells::Text, Value::String(text)) if !field.text => {
                let value = crate::cell::read(text);
                // An empty cell of a column that must have a value is the empty text.
                Ok(if field.field == "input" { value.or_else(|| Some("".into())) } else { value })
            }
            (_, value) => Ok(Some(value)),
        }
    }
}
