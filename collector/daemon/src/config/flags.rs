//! `[flags]`: which parts of the API are there, and for how many of the users.

use super::document::{Found, Value};
use super::reader::Reader;
use super::units::FromValue;

/// A part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    /// For anyone at all.
    pub enabled: bool,
    /// Percent of the users.
    pub rollout: u32,
}

/// The parts of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    /// Evaluations, datasets, templates, rules; off, no job and no rule runs either.
    pub evaluations: Flag,
    /// Traces and what is computed from them.
    pub traces: Flag,
    /// Experiments.
    pub experiments: Flag,
    /// Metrics beyond those of a prompt's page.
    pub advanced_metrics: Flag,
}

/// Reads `[flags]`. `PHOENIX_ENABLED=false`, the application's own switch, turns every part off.
pub(super) fn flags(reader: &mut Reader) -> Flags {
    let usual = |rollout| Flag { enabled: true, rollout };
    let mut section = reader.section("flags");
    let is_on = section.value_or("enabled", "PHOENIX_ENABLED", true);
    let flags = Flags {
        evaluations: section.value("evaluations", usual(100)),
        traces: section.value("traces", usual(100)),
        experiments: section.value("experiments", usual(50)),
        advanced_metrics: section.value("advancedMetrics", usual(25)),
    };
    section.finish();
    let with = |flag: Flag| Flag { enabled: is_on && flag.enabled, ..flag };
    Flags {
        evaluations: with(flags.evaluations),
        traces: with(flags.traces),
        experiments: with(flags.experiments),
        advanced_metrics: with(flags.advanced_metrics),
    }
}

impl FromValue for Flag {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "{ enabled = true, rollout = 100 }";
        let Value::Table(mut table) = super::units::untyped(found)? else {
            return Ok(Self {
                enabled: bool::from_value(found).map_err(|_| format!("expected {FORM}, true or false"))?,
                rollout: 100,
            });
        };
        let enabled = table.remove("enabled").map_or(Ok(true), |found| bool::from_value(&found))?;
        let rollout = table.remove("rollout").map_or(Ok(100), |found| u32::from_value(&found))?;
        match table.keys().next() {
            Some(unknown) => Err(format!("unknown key `{unknown}`: expected {FORM}")),
            None if rollout > 100 => Err("rollout is a percentage: 0 to 100".into()),
            None => Ok(Self { enabled, rollout }),
        }
    }
}
