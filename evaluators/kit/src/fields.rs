//! An example through an evaluator's eyes: its fields, by the job's mapping.
//!
//! Promise: a required field that is not there is [`Class::MissingField`](crate::Class::MissingField) with its name and where it was
//! looked for, never a score; texts are borrowed where the example holds a string.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::contract::{Failure, Field};
use crate::example::Example;
use crate::path::{Path, PathError};

/// Where each field of an evaluator is found.
#[derive(Clone, Debug)]
pub struct Mapping {
    fields: Vec<Mapped>,
    text_bytes_max: usize,
}

#[derive(Clone, Debug)]
struct Mapped {
    name: Cow<'static, str>,
    required: bool,
    paths: Paths,
}

/// The first that is there counts.
#[derive(Clone, Debug)]
struct Paths(Vec<Path>);

/// What a job says about where fields are: one path, or several of which the first that is there counts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// A path.
    One(String),
    /// Paths by preference.
    Any(Vec<String>),
}

/// A mapping that does not fit its evaluator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Another field than the evaluator has.
    #[error("mapping: unknown field {field:?}, this evaluator has: {known}")]
    UnknownField {
        /// The field.
        field: String,
        /// Those that there are.
        known: String,
    },
    /// A path that cannot be read.
    #[error("mapping of {field:?}: {source}")]
    Path {
        /// The field.
        field: String,
        /// What is wrong.
        source: PathError,
    },
    /// No path at all, or too many.
    #[error("mapping of {field:?}: between one and eight paths")]
    Count {
        /// The field.
        field: String,
    },
}

impl Mapping {
    /// The evaluator's own paths, replaced where the job says so.
    ///
    /// # Errors
    /// A field that the evaluator does not have, or a path that cannot be read.
    pub fn new(
        fields: &[Field],
        places: &BTreeMap<String, Place>,
        text_bytes_max: usize,
    ) -> Result<Self, MappingError> {
        if let Some(field) = places.keys().find(|name| !fields.iter().any(|field| field.name == ***name)) {
            let known = fields.iter().map(|field| &*field.name).collect::<Vec<_>>().join(", ");
            return Err(MappingError::UnknownField { field: field.clone(), known });
        }
        let map = |field: &Field| {
            let texts: Vec<&str> = match places.get(&*field.name) {
                None => field.paths.iter().map(|path| &**path).collect(),
                Some(Place::One(path)) => vec![path],
                Some(Place::Any(paths)) => paths.iter().map(String::as_str).collect(),
            };
            if texts.is_empty() || texts.len() > 8 {
                return Err(MappingError::Count { field: field.name.to_string() });
            }
            let paths = texts.into_iter().map(Path::parse).collect::<Result<_, _>>();
            let paths = paths.map_err(|source| MappingError::Path { field: field.name.to_string(), source })?;
            Ok(Mapped { name: field.name.clone(), required: field.required, paths: Paths(paths) })
        };
        Ok(Self { fields: fields.iter().map(map).collect::<Result<_, _>>()?, text_bytes_max })
    }

    /// This example's fields.
    pub fn of<'a>(&'a self, example: &'a Example) -> Fields<'a> {
        Fields { mapping: self, example }
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, path) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { " or " };
            write!(out, "{between}{path}")?;
        }
        Ok(())
    }
}

/// The fields of one example.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    mapping: &'a Mapping,
    example: &'a Example,
}

impl<'a> Fields<'a> {
    /// The field's value, if it is there.
    pub fn optional(&self, name: &str) -> Option<Cow<'a, Value>> {
        self.mapped(name)?.paths.0.iter().find_map(|path| path.find(self.example))
    }

    /// The field's value.
    ///
    /// # Errors
    /// [`Class::MissingField`](crate::Class::MissingField).
    pub fn value(&self, name: &str) -> Result<Cow<'a, Value>, Failure> {
        self.optional(name).ok_or_else(|| self.missing(name))
    }

    /// The field's text: a string as it is, any other value as compact JSON.
    ///
    /// # Errors
    /// [`Class::MissingField`](crate::Class::MissingField), [`Class::TooLarge`](crate::Class::TooLarge).
    pub fn text(&self, name: &str) -> Result<Cow<'a, str>, Failure> {
        self.bounded(name, text_of(self.value(name)?))
    }

    /// The field's text, if it is there.
    ///
    /// # Errors
    /// [`Class::TooLarge`](crate::Class::TooLarge).
    pub fn optional_text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Failure> {
        self.optional(name).map(|value| self.bounded(name, text_of(value))).transpose()
    }

    /// The field's texts: a list of strings as they are, anything else as a list of one.
    ///
    /// # Errors
    /// As [`Fields::text`].
    pub fn texts(&self, name: &str) -> Result<Vec<Cow<'a, str>>, Failure> {
        let value = self.value(name)?;
        let texts: Vec<Cow<'a, str>> = match value {
            Cow::Borrowed(Value::Array(items)) if !items.is_empty() && items.iter().all(Value::is_string) => {
                items.iter().map(|item| text_of(Cow::Borrowed(item))).collect()
            }
            Cow::Owned(Value::Array(items)) if !items.is_empty() && items.iter().all(Value::is_string) => {
                items.into_iter().map(|item| text_of(Cow::Owned(item))).collect()
            }
            value => vec![text_of(value)],
        };
        let bytes = texts.iter().map(|text| text.len()).sum();
        self.fits(name, bytes)?;
        Ok(texts)
    }

    /// The field as a finite number; a string that holds one will do.
    ///
    /// # Errors
    /// [`Class::MissingField`](crate::Class::MissingField), [`Class::InvalidField`](crate::Class::InvalidField).
    pub fn number(&self, name: &str) -> Result<f64, Failure> {
        let number = match &*self.value(name)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number: &f64| number.is_finite()).ok_or_else(|| Failure::invalid(name, "a number"))
    }

    /// Every required field is there.
    ///
    /// # Errors
    /// [`Class::MissingField`](crate::Class::MissingField).
    pub fn complete(&self) -> Result<(), Failure> {
        let missing = self.mapping.fields.iter().find(|field| field.required && self.optional(&field.name).is_none());
        missing.map_or(Ok(()), |field| Err(self.missing(&field.name)))
    }

    fn bounded(&self, name: &str, text: Cow<'a, str>) -> Result<Cow<'a, str>, Failure> {
        self.fits(name, text.len())?;
        Ok(text)
    }

    fn fits(&self, name: &str, bytes: usize) -> Result<(), Failure> {
        let max = self.mapping.text_bytes_max;
        if bytes > max { Err(Failure::too_large(&format!("bytes of {name}"), bytes, max)) } else { Ok(()) }
    }

    fn mapped(&self, name: &str) -> Option<&'a Mapped> {
        self.mapping.fields.iter().find(|field| field.name == name)
    }

    fn missing(&self, name: &str) -> Failure {
        match self.mapped(name) {
            Some(field) => Failure::missing(name, &field.paths),
            None => Failure::missing(name, &"no path"),
        }
    }
}

/// A string as it is, any other value as compact JSON.
pub(crate) fn text_of(value: Cow<'_, Value>) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(Value::String(text)) => Cow::Borrowed(text),
        Cow::Owned(Value::String(text)) => Cow::Owned(text),
        other => Cow::Owned(other.to_string()),
    }
}
