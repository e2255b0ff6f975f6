//! What a plugin says it offers, checked before anybody believes it.
//!
//! Promise: a [`Catalog`] has at least one evaluator; names are safe, none comes twice; every text and list is bounded; every path can be
//! read. A description that breaks this refuses the plugin, and says why.

use std::collections::{BTreeMap, BTreeSet};

use emberd_evaluators_kit::contract::Description;
use emberd_evaluators_kit::wire;
use emberd_proto::evaluator::v1 as pb;

use crate::names::{cut, is_name, is_word};

const EVALUATORS_MAX: usize = 256;
const FIELDS_MAX: usize = 32;
const OUTPUTS_MAX: usize = 32;
const LABELS_MAX: usize = 64;
pub(crate) const LABEL_BYTES_MAX: usize = 256;
const JSON_BYTES_MAX: usize = 16 << 10;

/// The evaluators of a plugin, by their own names; each described as `PLUGIN/METRIC`.
pub(crate) type Catalog = BTreeMap<String, Description>;

/// Reads a plugin's description. The error is why the plugin is refused.
pub(crate) fn read(plugin: &str, told: pb::DescribeResponse) -> Result<Catalog, String> {
    if told.contract != wire::CONTRACT {
        return Err(format!("it speaks version {} of the contract, not {}", told.contract, wire::CONTRACT));
    }
    if !is_name(&told.plugin) {
        return Err(format!("its name {:?} is not made of a-z, 0-9, _ and -", cut(&told.plugin, 64)));
    }
    count("evaluators", told.evaluators.len(), 1, EVALUATORS_MAX)?;
    let mut catalog = Catalog::new();
    for evaluator in told.evaluators {
        let name = evaluator.name.clone();
        if !is_name(&name) {
            return Err(format!("the evaluator's name {:?} is not made of a-z, 0-9, _ and -", cut(&name, 64)));
        }
        let description = described(plugin, evaluator).map_err(|what| format!("evaluator {name}: {what}"))?;
        if catalog.insert(name.clone(), description).is_some() {
            return Err(format!("two evaluators are named {name}"));
        }
    }
    Ok(catalog)
}

/// What the kit reads, after what only matters when nobody of ours has written it.
fn described(plugin: &str, mut told: pb::Description) -> Result<Description, String> {
    if !is_word(&told.version) {
        return Err(format!("its version {:?} is not a short word", cut(&told.version, 64)));
    }
    count("fields", told.fields.len(), 0, FIELDS_MAX)?;
    count("outputs", told.outputs.len(), 1, OUTPUTS_MAX)?;
    count("config keys", told.config.len(), 0, FIELDS_MAX)?;
    distinct("fields", told.fields.iter().map(|field| &field.name))?;
    distinct("outputs", told.outputs.iter().map(|output| &output.name))?;
    distinct("config keys", told.config.iter().map(|key| &key.name))?;
    told.outputs.iter().try_for_each(output)?;
    told.config.iter().try_for_each(key)?;
    told.fields.iter_mut().for_each(place);
    let description = wire::description(told).map_err(|error| error.what)?;
    Ok(Description { name: format!("{plugin}/{}", description.name), ..description })
}

/// A field without a place is where its name says, or else among the metadata.
fn place(told: &mut pb::Field) {
    let is_part = matches!(&*told.name, "input" | "output" | "reference" | "context" | "messages" | "metadata");
    if told.paths.is_empty() && !is_part {
        told.paths = vec![format!("/metadata/{}", told.name)];
    }
}

fn output(told: &pb::Output) -> Result<(), String> {
    let name = &told.name;
    if matches!((told.min, told.max), (Some(min), Some(max)) if min > max) {
        return Err(format!("the range of {name} is none"));
    }
    count("labels", told.labels.len(), 0, LABELS_MAX)?;
    if told.labels.iter().any(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX) {
        return Err(format!("a label of {name} is empty or longer than {LABEL_BYTES_MAX} bytes"));
    }
    Ok(())
}

fn key(told: &pb::ConfigKey) -> Result<(), String> {
    let name = &told.name;
    match &told.default_json {
        Some(text) if text.len() > JSON_BYTES_MAX => Err(format!("the default of {name} is too long")),
        Some(text) => serde_json::from_str::<serde::de::IgnoredAny>(text)
            .map(drop)
            .map_err(|_| format!("the default of {name} is not JSON")),
        None => Ok(()),
    }
}

fn count(what: &str, is: usize, min: usize, max: usize) -> Result<(), String> {
    if (min..=max).contains(&is) { Ok(()) } else { Err(format!("{is} {what}, not {min} to {max}")) }
}

fn distinct<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !is_word(name) {
            return Err(format!("{:?} among its {what} is not a short word", cut(name, 64)));
        }
        if !seen.insert(name) {
            return Err(format!("{name} comes twice among its {what}"));
        }
    }
    Ok(())
}
