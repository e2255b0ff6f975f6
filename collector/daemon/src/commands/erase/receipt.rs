//! What was asked, what there was, what is left and until when: kept for whoever asks later.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use emberd_model::{TraceId, UnixNanos};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::seek::InLog;
use crate::told;

/// A place, and how many there are of what is to go.
pub(super) type Count = (String, u64);

/// A receipt, begun or done.
pub(super) struct Receipt {
    told: Value,
    name: String,
}

fn digest(kind: &str, name: &str) -> String {
    let digest = Sha256::digest(format!("{kind}:{name}").as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("receipts")
}

/// The traces of receipts for the same that were begun and not done.
pub(super) fn unfinished(data_dir: &Path, kind: &str, name: &str) -> anyhow::Result<BTreeSet<TraceId>> {
    let mut traces = BTreeSet::new();
    let entries = match fs::read_dir(dir(data_dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(traces),
        Err(error) => return Err(error).context("cannot read the receipts"),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let told: Value = serde_json::from_slice(&fs::read(&path)?).with_context(|| format!("{}", path.display()))?;
        if told["sha256"] == digest(kind, name) && told["done"].is_null() {
            let named = told["traces"].as_array().into_iter().flatten();
            traces.extend(named.filter_map(|trace| trace.as_str()?.parse::<TraceId>().ok()));
        }
    }
    Ok(traces)
}

impl Receipt {
    pub(super) fn new(kind: &str, name: &str, plain: bool, now: UnixNanos, traces: &BTreeSet<TraceId>) -> Self {
        let digest = digest(kind, name);
        let traces: Vec<String> = traces.iter().map(TraceId::to_string).collect();
        let asked = if plain || kind == "trace" { json!(name) } else { Value::Null };
        let told = json!({
            "asked": { "kind": kind, "name": asked },
            "sha256": digest,
            "begun": told::moment(now.micros()),
            "done": null,
            "traces": traces,
            "places": {},
            "stays": [
                "numbers that came of these traces: rollups, totals, an evaluation's sums, the ledger",
                "copies that emberd does not know of: backups, further OTLP endpoints, Phoenix's datasets and experiments",
            ],
        });
        Self { name: format!("erase-{}-{}.json", now.micros(), &digest[..12]), told }
    }

    /// What the log holds, and until when.
    pub(super) fn keeps(&mut self, log: &InLog, keep: Duration) {
        let until = log.newest.map(|newest| newest.micros() + i64::try_from(keep.as_micros()).unwrap_or(i64::MAX / 2));
        self.told["log"] = json!({
            "spans": log.spans, "segments": log.segments, "until": until.map(told::moment),
        });
        if let Some(until) = until {
            let until = told::moment(until);
            self.stays(format!(
                "{} spans in the log: until {until}, and as long after as their segment is not full",
                log.spans
            ));
        }
    }

    pub(super) fn stays(&mut self, what: String) {
        if let Some(stays) = self.told["stays"].as_array_mut() {
            stays.push(what.into());
        }
    }

    fn counts(&mut self, when: &str, counts: Vec<Count>) {
        for (place, count) in counts {
            self.told["places"][place][when] = count.into();
        }
    }

    pub(super) fn before(&mut self, counts: Vec<Count>) {
        self.counts("before", counts);
    }

    pub(super) fn after(&mut self, counts: Vec<Count>) {
        self.counts("after", counts);
    }

    pub(super) fn is_dry(&mut self) {
        self.told["dry_run"] = true.into();
    }

    pub(super) fn done(&mut self, now: UnixNanos) {
        self.told["done"] = told::moment(now.micros()).into();
    }

    fn places(&self) -> impl Iterator<Item = (&String, &Map<String, Value>)> {
        let places = self.told["places"].as_object().into_iter().flatten();
        places.filter_map(|(place, counts)| Some((place, counts.as_object()?)))
    }

    /// Whether every place is empty now.
    pub(super) fn nothing_is_left(&self) -> bool {
        self.places().all(|(_, counts)| counts.get("after").is_none_or(|after| after == 0))
    }

    pub(super) fn as_json(&self) -> &Value {
        &self.told
    }

    pub(super) fn as_text(&self) -> String {
        let asked = &self.told["asked"];
        let name = asked["name"].as_str().unwrap_or("(named by its SHA-256 in the receipt)");
        let traces = self.told["traces"].as_array().map_or(0, Vec::len);
        let mut text = format!("{} {name}: {traces} traces\n", asked["kind"].as_str().unwrap_or_default());
        for (place, counts) in self.places() {
            let count = |when: &str| counts.get(when).and_then(Value::as_u64);
            if count("before").unwrap_or(0) == 0 && count("after").unwrap_or(0) == 0 {
                continue;
            }
            let after = count("after").map_or(String::new(), |after| format!(" -> {after}"));
            text.push_str(&format!("  {place:<24}{:>8}{after}\n", count("before").unwrap_or(0)));
        }
        for what in self.told["stays"].as_array().into_iter().flatten() {
            text.push_str(&format!("  stays: {}\n", what.as_str().unwrap_or_default()));
        }
        match self.told["dry_run"] == true {
            true => text.push_str("nothing was erased: this was a look\n"),
            false => text.push_str(&format!("receipt: {}\n", self.name)),
        }
        text
    }

    /// Writes it so that it is whole or not there.
    pub(super) fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        let dir = dir(data_dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .context("cannot make the receipts' directory")?;
        Ok(emberd_log::replace_file(&dir.join(&self.name), &serde_json::to_vec_pretty(&self.told)?)?)
    }
}
