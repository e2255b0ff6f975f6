//! How a job names an evaluator: `"exact_match"`, or `{name, config?, mapping?, as?}`.
//!
//! Promise: an unknown key is an error that says which there are; what is built is validated, so that a bad pattern or schema fails
//! before the first example.
//! Not here: names with a slash (`PLUGIN/METRIC`): hosts know them.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::contract::{Description, Limits};
use crate::evaluator::{Coded, Evaluator};
use crate::fields::{Mapping, MappingError, Place};
use crate::identity::Identity;
use crate::{builtin, judge};

/// An evaluator as a job names it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spec {
    /// A built-in, a template, or `PLUGIN/METRIC`.
    pub name: String,
    /// Its configuration.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// Where its fields are, where not in their usual places.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mapping: BTreeMap<String, Place>,
    /// The name under which its scores are kept, when a job uses one evaluator twice.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub name_as: Option<String>,
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            name: String,
            #[serde(default)]
            config: Map<String, Value>,
            #[serde(default)]
            mapping: BTreeMap<String, Place>,
            #[serde(rename = "as")]
            name_as: Option<String>,
        }
        match Value::deserialize(deserializer)? {
            Value::String(name) => Ok(Self { name, ..Self::default() }),
            // Not an untagged enum: its error would not say which key was wrong.
            value @ Value::Object(_) => {
                let Full { name, config, mapping, name_as } = Full::deserialize(value).map_err(D::Error::custom)?;
                Ok(Self { name, config, mapping, name_as })
            }
            _ => Err(D::Error::custom("an evaluator is a name, or {name, config?, mapping?, as?}")),
        }
    }
}

/// An evaluator that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing here has that name.
    #[error("unknown evaluator {name:?}; built in: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Its configuration is not valid.
    #[error("{name}: {source}")]
    Config {
        /// The evaluator.
        name: String,
        /// What is wrong.
        source: ConfigError,
    },
    /// Its mapping is not valid.
    #[error("{name}: {source}")]
    Mapping {
        /// The evaluator.
        name: String,
        /// What is wrong.
        source: MappingError,
    },
    /// It needs a model: [`judge::Judge`] is what is to be built.
    #[error("{name} is judged by a model")]
    NeedsModel {
        /// The evaluator.
        name: String,
    },
}

/// A configuration that is not valid, in one sentence that names the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("config: {0}")]
pub struct ConfigError(pub String);

impl ConfigError {
    /// This is wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// A built-in: [`build`] makes it.
    Code,
    /// A shipped template: [`judge::Judge::new`] makes it, and a model is needed.
    Judge,
}

/// What stands behind a name, aliases included; `None` when neither a built-in nor a shipped template has it.
pub fn known(name: &str) -> Option<Is> {
    if builtin::find(name).is_some() { Some(Is::Code) } else { judge::shipped(name).map(|_| Is::Judge) }
}

/// Builds a built-in.
///
/// # Errors
/// An unknown name, an invalid configuration or mapping.
pub fn build(spec: &Spec) -> Result<Coded, BuildError> {
    let name = || spec.name.clone();
    let Some(entry) = builtin::find(&spec.name) else {
        if judge::shipped(&spec.name).is_some() {
            return Err(BuildError::NeedsModel { name: name() });
        }
        let known = builtin::ENTRIES.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        return Err(BuildError::Unknown { name: crate::contract::cut(name(), 256), known });
    };
    let mut description = entry.describe();
    let config = Value::Object(spec.config.clone());
    let code = (entry.build)(config.clone(), &mut description)
        .map_err(|source| BuildError::Config { name: name(), source })?;
    let field_bytes_max = usize::try_from(Limits::default().field_bytes_max).unwrap_or(usize::MAX);
    let mapping = Mapping::new(&description.fields, &spec.mapping, field_bytes_max)
        .map_err(|source| BuildError::Mapping { name: name(), source })?;
    let identity = Identity::new(entry.name, &description.version, &[&config, &json!(spec.mapping)]);
    Ok(Coded::new(description, identity, mapping, code))
}

/// Every evaluator that is built in or shipped as a template, as described without configuration.
pub fn descriptions() -> Vec<Description> {
    let code = builtin::ENTRIES.iter().map(|entry| entry.describe());
    code.chain(judge::shipped_names().filter_map(judge::shipped).map(judge::Template::describe)).collect()
}

/// Reads a typed configuration: unknown keys, wrong types and missing keys are errors that name the key.
pub(crate) fn read<T: DeserializeOwned>(config: Value) -> Result<T, ConfigError> {
    T::deserialize(config).map_err(|error| ConfigError(error.to_string()))
}

/// The same for what implements [`Evaluator`] dynamically.
pub type Shared = std::sync::Arc<dyn Evaluator>;
