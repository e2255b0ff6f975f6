//! All plugins of a configuration.
//!
//! Promise: building starts nothing; [`Hosts::run`] runs all plugins, returns when it was stopped and each of them has ended, and ends
//! them also when it is dropped. One plugin's trouble is its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use emberd_evaluators_kit::contract::Description;
use emberd_evaluators_kit::spec::ConfigError as MetricConfigError;
use emberd_evaluators_kit::{Class, Failure, Identity, Mapping, Spec};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::child::SOCKET_PATH_BYTES_MAX;
use crate::config::{Config, ConfigError, Source};
use crate::metric::Metric;
use crate::names::cut;
use crate::plugin::{Plugin, State};
use crate::{child, remote, wasm};

const CONFIG_BYTES_MAX: usize = 16 << 10;

/// All plugins.
#[derive(Debug)]
pub struct Hosts {
    plugins: BTreeMap<String, Arc<Plugin>>,
    runtime_dir: PathBuf,
    interpreters: wasm::Interpreters,
}

/// A plugin's evaluator that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No plugin has that name.
    #[error("unknown evaluator {name:?}: no plugin of that name; there are: {known}")]
    NoPlugin {
        /// The name that was asked for.
        name: String,
        /// The plugins that there are.
        known: String,
    },
    /// The plugin is there, and has no such evaluator.
    #[error("unknown evaluator {name:?}; its plugin has: {known}")]
    NoMetric {
        /// The name that was asked for.
        name: String,
        /// Its evaluators.
        known: String,
    },
    /// The plugin cannot be asked now. Another try may help.
    #[error("{name}: {failure}")]
    NotReady {
        /// The evaluator.
        name: String,
        /// Why.
        failure: Failure,
    },
    /// Its configuration does not fit.
    #[error("{name}: {source}")]
    Config {
        /// The evaluator.
        name: String,
        /// What is wrong.
        source: MetricConfigError,
    },
    /// Its mapping does not fit.
    #[error("{name}: {source}")]
    Mapping {
        /// The evaluator.
        name: String,
        /// What is wrong.
        source: emberd_evaluators_kit::fields::MappingError,
    },
}

/// How a plugin is.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// The plugin.
    pub plugin: String,
    /// What it is doing.
    pub status: Status,
    /// Why it is down.
    pub why: Option<String>,
    /// Its process, where it is emberd's.
    pub pid: Option<u32>,
    /// Its evaluators, as `PLUGIN/METRIC`.
    pub evaluators: Vec<String>,
    /// Those whose circuit is open.
    pub open_circuits: Vec<String>,
}

/// What a plugin is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not described yet.
    Starting,
    /// It can be asked.
    Ready,
    /// It cannot; it is tried again.
    Down,
    /// emberd is stopping.
    Stopped,
}

impl Hosts {
    /// Takes a configuration; nothing starts before [`Hosts::run`]. Below `runtime_dir`, each process has its directory and socket.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn new(plugins: BTreeMap<String, Config>, runtime_dir: &Path) -> Result<Self, Vec<ConfigError>> {
        let mut errors: Vec<ConfigError> = plugins.iter().flat_map(|(name, config)| config.check(name)).collect();
        for name in
            plugins.iter().filter(|(_, config)| matches!(config.source, Source::Command(_))).map(|(name, _)| name)
        {
            let socket = child::socket(&runtime_dir.join(name));
            if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
                let what =
                    format!("the socket's path is longer than {SOCKET_PATH_BYTES_MAX} bytes: {}", socket.display());
                errors.push(ConfigError { plugin: name.clone(), what });
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let plugins = plugins.into_iter().map(|(name, config)| (name.clone(), Arc::new(Plugin::new(name, config))));
        let interpreters = wasm::Interpreters::default();
        Ok(Self { plugins: plugins.collect(), runtime_dir: runtime_dir.to_owned(), interpreters })
    }

    /// Runs all plugins until `stop`, and ends them. A process is given its grace and then killed.
    pub async fn run(&self, stop: &CancellationToken) {
        join_all(self.plugins.values().map(|plugin| async {
            match &plugin.config.source {
                Source::Command(command) => {
                    child::supervise(plugin, command, &self.runtime_dir.join(&plugin.name), stop).await;
                }
                Source::Address(url) => remote::keep(plugin, url, stop).await,
                Source::Wasm { module, limits } => wasm::keep(plugin, module, limits, &self.interpreters, stop).await,
            }
            stop.cancelled().await;
            plugin.is_now(State::Stopped);
        }))
        .await;
    }

    /// The evaluator that a job names `PLUGIN/METRIC`, when its plugin is ready within this time.
    ///
    /// # Errors
    /// There is none of that name, its plugin is not ready, its configuration or mapping does not fit.
    pub async fn evaluator(&self, spec: &Spec, within: Duration) -> Result<Arc<Metric>, BuildError> {
        let name = cut(&spec.name, 256).to_owned();
        let found = spec.name.split_once('/').and_then(|(plugin, metric)| Some((self.plugins.get(plugin)?, metric)));
        let Some((plugin, metric)) = found else {
            let known = self.plugins.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(BuildError::NoPlugin { name, known });
        };
        let ready = plugin.ready(Instant::now() + within, false).await;
        let live = ready.map_err(|failure| BuildError::NotReady { name: name.clone(), failure })?;
        let Some(description) = live.catalog.get(metric) else {
            let known = live.catalog.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(BuildError::NoMetric { name, known });
        };
        build(Arc::clone(plugin), metric, description.clone(), spec)
    }

    /// Whether a plugin of this configuration would have an evaluator of that name: `PLUGIN/`.
    pub fn has_plugin_of(&self, name: &str) -> bool {
        name.split_once('/').is_some_and(|(plugin, _)| self.plugins.contains_key(plugin))
    }

    /// Every evaluator of the plugins that are ready.
    pub fn descriptions(&self) -> Vec<Description> {
        let ready = self.plugins.values().filter_map(|plugin| match plugin.state() {
            State::Ready(live) => Some(live),
            _ => None,
        });
        ready.flat_map(|live| live.catalog.values().cloned().collect::<Vec<_>>()).collect()
    }

    /// How every plugin is.
    pub fn standings(&self) -> Vec<Standing> {
        self.plugins.values().map(|plugin| standing(plugin)).collect()
    }
}

fn standing(plugin: &Plugin) -> Standing {
    let (status, why, live) = match plugin.state() {
        State::Starting => (Status::Starting, None, None),
        State::Ready(live) => (Status::Ready, None, Some(live)),
        State::Down { why, .. } => (Status::Down, Some(why), None),
        State::Stopped => (Status::Stopped, None, None),
    };
    let evaluators = live.iter().flat_map(|live| live.catalog.values()).map(|one| one.name.clone());
    Standing {
        plugin: plugin.name.clone(),
        status,
        why,
        pid: live.as_ref().and_then(|live| live.pid),
        evaluators: evaluators.collect(),
        open_circuits: plugin.open_circuits(),
    }
}

fn build(plugin: Arc<Plugin>, metric: &str, description: Description, spec: &Spec) -> Result<Arc<Metric>, BuildError> {
    let name = || description.name.clone();
    let config = configured(&description, &spec.config)
        .map_err(|what| BuildError::Config { name: name(), source: MetricConfigError::new(what) })?;
    let config_json = config.to_string();
    let bytes_max = usize::try_from(description.limits.field_bytes_max).unwrap_or(usize::MAX);
    let mapping = Mapping::new(&description.fields, &spec.mapping, bytes_max)
        .map_err(|source| BuildError::Mapping { name: name(), source })?;
    let identity = Identity::new(&description.name, &description.version, &[&config, &json!(spec.mapping)]);
    Ok(Arc::new(Metric { plugin, name: metric.to_owned(), description, identity, config_json, mapping }))
}

/// The job's configuration over the declared defaults.
fn configured(description: &Description, told: &Map<String, Value>) -> Result<Value, String> {
    if let Some(key) = told.keys().find(|key| !description.config.iter().any(|known| known.name == ***key)) {
        let known = description.config.iter().map(|key| &*key.name).collect::<Vec<_>>().join(", ");
        return Err(format!("unknown key {:?}, this evaluator has: {known}", cut(key, 64)));
    }
    let mut config = Map::new();
    for key in &description.config {
        match told.get(&*key.name).or(key.default.as_ref()) {
            Some(value) => drop(config.insert(key.name.to_string(), value.clone())),
            None => return Err(format!("{} must be given", key.name)),
        }
    }
    let config = Value::Object(config);
    if config.to_string().len() > CONFIG_BYTES_MAX {
        return Err(format!("longer than {CONFIG_BYTES_MAX} bytes"));
    }
    Ok(config)
}

impl BuildError {
    /// The class under which a job keeps it.
    pub fn class(&self) -> Class {
        match self {
            Self::NotReady { failure, .. } => failure.class,
            Self::NoPlugin { .. } | Self::NoMetric { .. } | Self::Config { .. } | Self::Mapping { .. } => {
                Class::ConfigError
            }
        }
    }
}
