//! How a plugin is configured: `[plugins.NAME]` with `command`, `address` or `wasm`, and its bounds.
//!
//! Promise: a value that was checked can be run; all mistakes of a configuration are told at once.
//! Not here: reading files (daemon).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::child::limits::ProcessLimits;
use crate::names::is_name;

/// One plugin.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where its code is.
    pub source: Source,
    /// What it may take.
    pub bounds: Bounds,
}

/// Where a plugin's code is.
#[derive(Clone, Debug)]
pub enum Source {
    /// A process that emberd starts, watches and ends.
    Command(Command),
    /// Somebody else's process: `http://host:port` or `https://host:port`.
    Address(String),
    /// A WebAssembly module.
    Wasm {
        /// The `.wasm` file.
        module: PathBuf,
        /// What it may take.
        limits: WasmLimits,
    },
}

/// A process to start.
#[derive(Clone)]
pub struct Command {
    /// The program and its arguments; the program is looked for in `PATH` of [`Command::env`].
    pub argv: Vec<String>,
    /// Its environment, beside the variables that emberd sets (docs/plugins.md). Nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Where it starts; its own private directory otherwise.
    pub working_dir: Option<PathBuf>,
    /// What the operating system lets it take.
    pub limits: ProcessLimits,
}

impl fmt::Debug for Command {
    // Environments hold keys: only the names are shown.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Command").field("argv", &self.argv).field("env", &self.env.keys()).finish_non_exhaustive()
    }
}

impl Command {
    /// This program with these arguments, nothing in its environment, the usual limits.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, env: BTreeMap::new(), working_dir: None, limits: ProcessLimits::default() }
    }
}

/// What a plugin may take of time, room and patience.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// From asking for a batch to its last result. What is unanswered then fails with `timeout`.
    pub deadline: Duration,
    /// From its start to its description. Python with its libraries may need a minute.
    pub start: Duration,
    /// From being asked to stop to being killed.
    pub grace: Duration,
    /// Batches that it is asked at once.
    pub batches_in_flight: usize,
    /// The largest message, either way.
    pub message_bytes: usize,
    /// Faults of an evaluator in a row that open its circuit.
    pub faults_in_a_row: u32,
    /// How long the circuit stays open the first time; twice as long each further time, up to ten times.
    pub cooldown: Duration,
    /// How often an address is asked for its description.
    pub describe_every: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            start: Duration::from_secs(120),
            grace: Duration::from_secs(2),
            batches_in_flight: 4,
            message_bytes: 4 << 20,
            faults_in_a_row: 5,
            cooldown: Duration::from_secs(30),
            describe_every: Duration::from_secs(30),
        }
    }
}

/// What a WebAssembly module may take.
#[derive(Clone, Debug)]
pub struct WasmLimits {
    /// Its linear memory.
    pub memory_bytes: usize,
    /// Steps for one batch; about as many as instructions. A batch that needs more fails with `timeout`.
    pub fuel: u64,
    /// The `.wasm` file.
    pub module_bytes: u64,
}

impl Default for WasmLimits {
    fn default() -> Self {
        Self { memory_bytes: 64 << 20, fuel: 2_000_000_000, module_bytes: 16 << 20 }
    }
}

/// A plugin's configuration that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plugin {plugin:?}: {what}")]
pub struct ConfigError {
    /// The plugin.
    pub plugin: String,
    /// What is wrong.
    pub what: String,
}

impl Config {
    /// This source within the usual bounds.
    pub fn new(source: Source) -> Self {
        Self { source, bounds: Bounds::default() }
    }

    /// All that is wrong with it.
    pub(crate) fn check(&self, name: &str) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut wrong = |what: String| errors.push(ConfigError { plugin: name.to_owned(), what });
        if !is_name(name) {
            wrong("a name is 1 to 64 of a-z, 0-9, _ and -".into());
        }
        match &self.source {
            Source::Command(command) => {
                if command.argv.first().is_none_or(String::is_empty) {
                    wrong("command is empty".into());
                }
                let texts = command.argv.iter().chain(command.env.keys()).chain(command.env.values());
                if texts.into_iter().any(|text| text.contains('\0')) || command.env.keys().any(|key| key.contains('='))
                {
                    wrong("a NUL in command or env, or a = in a variable's name".into());
                }
            }
            Source::Address(url) => {
                if let Err(error) = crate::remote::endpoint(url, &self.bounds) {
                    wrong(format!("address: {error}"));
                }
            }
            Source::Wasm { limits, .. } => {
                if limits.memory_bytes < 64 << 10 || limits.fuel == 0 {
                    wrong("a module needs at least 64 KiB of memory, and fuel".into());
                }
            }
        }
        let bounds = &self.bounds;
        if bounds.deadline.is_zero() || bounds.start.is_zero() || bounds.describe_every.is_zero() {
            wrong("deadline, start and describe_every are longer than nothing".into());
        }
        if !(1..=1000).contains(&bounds.batches_in_flight) || bounds.faults_in_a_row == 0 {
            wrong("batches_in_flight is from 1 to 1000, faults_in_a_row at least 1".into());
        }
        if !((64 << 10)..=(64 << 20)).contains(&bounds.message_bytes) {
            wrong("message_bytes is from 64 KiB to 64 MiB".into());
        }
        errors
    }
}
