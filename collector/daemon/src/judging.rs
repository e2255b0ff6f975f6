//! What the API may show of evaluation: how the plugins are, how many evaluations there are and how long they took.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use emberd_evaluators_hosts::{Hosts, Status};
use emberd_evaluators_jobs::{BOUNDS, Counters, Handle};
use serde_json::{Value, json};

/// Read-only handles on what judges.
pub(crate) struct Judging {
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) handle: Handle,
}

impl Judging {
    /// All that is known of each plugin; why one is down may be in its own words.
    pub(crate) fn standings(&self) -> Value {
        json!(self.hosts.standings())
    }

    /// How each plugin is, in words that anybody may see.
    pub(crate) fn words(&self) -> BTreeMap<String, &'static str> {
        self.hosts.standings().into_iter().map(|standing| (standing.plugin, word(standing.status))).collect()
    }

    pub(crate) fn metrics(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = evaluations(&self.handle.counters(), out);
        let _ = self.plugins(out);
    }

    fn plugins(&self, out: &mut String) -> std::fmt::Result {
        let standings = self.hosts.standings();
        head(out, "emberd_plugin_ready", "gauge", "Whether a plugin can be asked.")?;
        for standing in &standings {
            let is_ready = u8::from(standing.status == Status::Ready);
            writeln!(out, "emberd_plugin_ready{{plugin=\"{}\"}} {is_ready}", standing.plugin)?;
        }
        head(out, "emberd_plugin_open_circuits", "gauge", "Evaluators of a plugin that are not asked for a while.")?;
        for standing in &standings {
            let open = standing.open_circuits.len();
            writeln!(out, "emberd_plugin_open_circuits{{plugin=\"{}\"}} {open}", standing.plugin)?;
        }
        Ok(())
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Starting => "starting",
        Status::Ready => "ready",
        Status::Down => "down",
        Status::Stopped => "stopped",
    }
}

fn evaluations(told: &Counters, out: &mut String) -> std::fmt::Result {
    let help = "Evaluations: running now, whoever works on them; ended by this emberd since its start.";
    head(out, "phoenix_evaluations", "gauge", help)?;
    for (status, count) in [
        ("running", told.running),
        ("completed", told.completed),
        ("failed", told.failed),
        ("cancelled", told.cancelled),
    ] {
        writeln!(out, "phoenix_evaluations{{status=\"{status}\"}} {count}")?;
    }
    head(out, "emberd_evaluations_created_total", "counter", "Evaluations that were made by this emberd.")?;
    writeln!(out, "emberd_evaluations_created_total {}", told.created)?;
    const DURATION: &str = "phoenix_evaluation_duration_seconds";
    head(out, DURATION, "histogram", "From making an evaluation to its end, of those that this emberd ended.")?;
    let mut below = 0;
    for (bound, count) in BOUNDS.iter().zip(told.duration.counts) {
        below += count;
        writeln!(out, "{DURATION}_bucket{{le=\"{bound}\"}} {below}")?;
    }
    let count = told.duration.count();
    writeln!(out, "{DURATION}_bucket{{le=\"+Inf\"}} {count}")?;
    writeln!(out, "{DURATION}_sum {}\n{DURATION}_count {count}", told.duration.sum)
}

/// The two lines before a metric.
fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}
