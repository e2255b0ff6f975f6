//! `emberd doctor`: what emberd needs of its surroundings, looked at piece by piece, and what to do where something is missing.
//!
//! Promise: each check ends within [`PATIENCE`], and all run together; none changes anything that others see: ports that a daemon holds
//! are asked for, not taken; files are written into the data directory under a name of the doctor's own and removed; nothing is sent to
//! Phoenix or a model that would be kept or paid for.
//! Not here: how it is shown (`commands/doctor.rs`); whether the configuration itself is right (`config`, before any of this).
//! Kept by: `tests/it/doctor.rs`.
//!
//! - [`place`]: data directory, disk, clock. [`ports`]: who holds them. [`database`], [`phoenix`]: the two servers.
//! - [`beside`]: Redis, models, plugins, further endpoints. [`machine`]: limits of the process and the machine.

mod beside;
mod database;
mod machine;
mod phoenix;
mod place;
mod ports;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use emberd_model::Clock;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::config::Config;

/// No check takes longer; one that would is cut off and told as failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// A single question to a server.
const QUESTION: Duration = Duration::from_secs(5);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// It works, and someone should look.
    Warning,
    /// emberd cannot do its work with it.
    Failed,
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) check: String,
    /// How it is.
    pub(crate) state: State,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it; none where all is well.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

impl Finding {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Ok, found: found.into(), advice: None }
    }

    fn warning(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    /// A word that the configuration itself deserves.
    pub(crate) fn of_configuration(warning: String) -> Self {
        Self::warning("configuration", warning, "change it there")
    }

    fn failed(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Failed, found: found.into(), advice: Some(advice.into()) }
    }
}

/// What the checks are given.
#[derive(Clone)]
struct Patient {
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
}

type Check = Pin<Box<dyn Future<Output = Vec<Finding>> + Send>>;

/// All checks, in the order in which they are shown.
fn checks(patient: &Patient) -> Vec<(&'static str, Check)> {
    let all = |patient: &Patient| patient.clone();
    vec![
        ("ports", Box::pin(ports::look(all(patient))) as Check),
        ("data directory", Box::pin(place::directory(all(patient)))),
        ("disk", Box::pin(place::disk(all(patient)))),
        ("clock", Box::pin(place::clock(all(patient)))),
        ("database", Box::pin(database::look(all(patient)))),
        ("phoenix", Box::pin(phoenix::look(all(patient)))),
        ("forward", Box::pin(beside::forward(all(patient)))),
        ("redis", Box::pin(beside::redis(all(patient)))),
        ("models", Box::pin(beside::models(all(patient)))),
        ("plugins", Box::pin(beside::plugins(all(patient)))),
        ("limits", Box::pin(machine::limits(all(patient)))),
    ]
}

/// Looks at everything at once. `progress` hears how many checks are done, of how many, and which are still under way.
pub(crate) async fn examine(
    config: Config,
    clock: Arc<dyn Clock>,
    mut progress: impl FnMut(usize, usize, &[&'static str]),
) -> Vec<Finding> {
    let checks = checks(&Patient { config: Arc::new(config), clock });
    let (all, mut waiting): (usize, Vec<&'static str>) = (checks.len(), checks.iter().map(|(name, _)| *name).collect());
    let mut found: Vec<Vec<Finding>> = vec![Vec::new(); all];
    let mut running = JoinSet::new();
    for (place, (name, check)) in checks.into_iter().enumerate() {
        running.spawn(async move {
            let late = || vec![Finding::failed(name, format!("not done within {PATIENCE:?}"), "see what hangs there")];
            (place, name, tokio::time::timeout(PATIENCE, check).await.unwrap_or_else(|_| late()))
        });
    }
    progress(0, all, &waiting);
    while let Some(done) = running.join_next().await {
        match done {
            Ok((place, name, findings)) => {
                waiting.retain(|other| *other != name);
                found[place] = findings;
            }
            Err(died) => found[0].push(Finding::failed("doctor", died.to_string(), "report this")),
        }
        progress(all - waiting.len(), all, &waiting);
    }
    found.into_iter().flatten().collect()
}

/// An error with its causes, on one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// A number of bytes for people.
fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (bytes.max(1) as f64).log2() as usize / 10;
    let step = step.min(units.len() - 1);
    let of = bytes as f64 / 1024_f64.powi(step as i32);
    if step == 0 { format!("{bytes} B") } else { format!("{of:.1} {}", units[step]) }
}
