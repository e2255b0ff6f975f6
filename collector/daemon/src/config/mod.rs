//! One TOML file and the environment, read once into types that cannot be wrong.
//!
//! Promise: everything that is wrong is said at once, each with file, line and key (or the variable's name), before anything is
//! opened or bound; an unknown key or variable is wrong, and so is a secret that others can read.
//! On disk: the file of `--config`; every key is documented in `config/emberd.toml`, which holds the defaults.
//! In the environment: `EMBERD_SECTION_KEY` or `EMBERD__SECTION__KEY` for every key, above the app's own names
//! (`DATABASE_URL`, `PHOENIX_INTERNAL_URL`, ..), above the file.
//! Not here: what a component does with its section. No other room reads files of settings or the environment.
//! Kept by: `tests::the_documented_file_is_the_defaults`, `tests::every_fault_has_its_place`.
//!
//! - [`document`] reads TOML into a tree with places; [`environment`] holds the variables; [`reader`] lays one over the other.
//! - [`sections`], [`archive`], [`cache`], [`evaluation`], [`identity`], [`flags`], [`reconcile`], [`redact`], [`retention`] and [`rollback`] ask for the keys; [`units`] says what a key may hold; [`checks`] what keys must be together.
//! - [`changes`] says what one configuration has that another had not, and which keys a running emberd takes up.
//! - [`supervisor`]: what systemd says in the environment, and the sockets that it hands over.
//! - [`faults`] is what comes of it where it is not a configuration; [`secret`] reads what must not be shown.

mod archive;
mod cache;
mod changes;
mod checks;
mod document;
mod environment;
mod evaluation;
mod faults;
mod flags;
mod identity;
mod reader;
mod reconcile;
mod redact;
mod retention;
mod rollback;
mod secret;
mod sections;
mod supervisor;
mod units;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

pub(crate) use archive::{Archive, Bucket};
pub(crate) use cache::Cache;
pub(crate) use changes::Settings;
pub(crate) use evaluation::{Llm, Plugin, PluginSource};
use faults::Place;
pub(crate) use faults::{Errors, Fault};
pub(crate) use flags::{Flag, Flags};
pub(crate) use identity::Identity;
pub(crate) use reconcile::Reconcile;
pub(crate) use retention::Retention;
pub(crate) use rollback::{ROLLED_BACK, Rollback};
pub(crate) use secret::{Secret, SecretFile};
pub(crate) use sections::{
    Api, Choice, Compression, Database, Durability, Forward, Intake, Log, Phoenix, Recorder, Store,
};
pub(crate) use supervisor::Supervisor;
pub(crate) use units::Endpoint;

/// The OTLP endpoint of these words, as a key would have it; why not, if they are none.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    units::parse(text)
}

/// A duration, as a key would have it.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    units::parse(text)
}

/// Where everything lies if nobody says.
const DATA_DIR: &str = "emberd-data";

/// Where emberd listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
    /// The API.
    Api,
}

impl Door {
    pub(crate) const ALL: [Self; 3] = [Self::Grpc, Self::Http, Self::Api];

    /// The section and the key of its address.
    pub(crate) fn key(self) -> (&'static str, &'static str) {
        match self {
            Self::Grpc => ("intake", "grpc"),
            Self::Http => ("intake", "http"),
            Self::Api => ("api", "listen"),
        }
    }

    /// The section and the key of what it asks callers for.
    fn guard(self) -> (&'static str, &'static str) {
        match self {
            Self::Grpc | Self::Http => ("intake", "keys_file"),
            Self::Api => ("identity", "jwt_secret_file"),
        }
    }
}

/// All that emberd is told.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// The OTLP doors.
    pub intake: Intake,
    /// What is taken out of spans before they are kept.
    pub redact: Vec<emberd_intake::redact::Rule>,
    /// The span log.
    pub log: Log,
    /// The database.
    pub store: Store,
    /// Phoenix.
    pub phoenix: Phoenix,
    /// Further OTLP endpoints.
    pub forward: Vec<Forward>,
    /// How spans become rows.
    pub recorder: Recorder,
    /// How long what is kept.
    pub retention: Retention,
    /// Where models are asked.
    pub llm: Llm,
    /// Evaluators of one's own.
    pub plugins: Vec<Plugin>,
    /// Who may call the API; none: whoever reaches it.
    pub identity: Option<Identity>,
    /// Which parts of the API are there, and for whom.
    pub flags: Flags,
    /// The API.
    pub api: Api,
    /// What is kept of what was read.
    pub cache: Cache,
    /// Where spans are laid down for good.
    pub archive: Archive,
    /// When what was written is held against what it was made of.
    pub reconcile: Reconcile,
    /// What a rollback does beside.
    pub rollback: Rollback,
    /// The tables were taken away: every flag is off, and nothing is recorded.
    pub rolled_back: bool,
    warnings: Vec<Fault>,
    settings: changes::Settings,
}

impl Config {
    /// Reads the file, if there is one, and the environment. `data_dir` is what the command line said; it counts most.
    pub(crate) fn load(path: Option<&Path>, data_dir: Option<PathBuf>) -> Result<Self, Errors> {
        Self::load_with(path, std::env::vars_os(), data_dir)
    }

    /// The same with an environment that is handed in.
    pub(crate) fn load_with(
        path: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        data_dir: Option<PathBuf>,
    ) -> Result<Self, Errors> {
        read(path, variables, data_dir).0
    }

    /// What works and yet deserves a word in the log at the start.
    pub(crate) fn warnings(&self) -> &[Fault] {
        &self.warnings
    }

    /// What every key was told, for a newer one to be held against.
    pub(crate) fn settings(&self) -> Settings {
        self.settings.clone()
    }

    /// Forwards to this Phoenix instead of the configured one, for a caller that has started it.
    pub(crate) fn point_at_phoenix(&mut self, url: &str, otlp: &str) -> Result<(), Errors> {
        let fault = |message| Errors(vec![Fault { place: Place::Default, key: "[phoenix]".into(), message }]);
        self.phoenix.url = units::parse(url).map_err(fault)?;
        self.phoenix.otlp = Some(units::parse(otlp).map_err(fault)?);
        Ok(())
    }

    /// Lets a door whose port is taken take a free one, for a caller that tells people where the doors are.
    pub(crate) fn free_busy_ports(&mut self) {
        for address in [&mut self.intake.grpc, &mut self.intake.http, &mut self.api.listen] {
            if std::net::TcpListener::bind(*address).is_err() {
                address.set_port(0);
            }
        }
    }
}

fn read(
    path: Option<&Path>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    data_dir: Option<PathBuf>,
) -> (Result<Config, Errors>, reader::Reader) {
    let mut faults = Vec::new();
    let environment = environment::Environment::of(variables, &mut faults);
    let file = path.and_then(|path| open(path, &mut faults)).unwrap_or_default();
    let syntax: Vec<Place> = faults.iter().map(|fault| fault.place.clone()).collect();

    let mut reader = reader::Reader::new(file, environment, faults);
    let named = reader.data_dir();
    let data_dir = data_dir.or(named).unwrap_or_else(|| DATA_DIR.into());
    let mut config = Config {
        intake: sections::intake(&mut reader),
        redact: redact::redact(&mut reader),
        log: sections::log(&mut reader),
        store: sections::store(&mut reader, &data_dir),
        phoenix: sections::phoenix(&mut reader),
        forward: sections::forward(&mut reader),
        recorder: sections::recorder(&mut reader),
        retention: retention::retention(&mut reader),
        llm: evaluation::llm(&mut reader),
        plugins: evaluation::plugins(&mut reader),
        identity: identity::identity(&mut reader),
        flags: flags::flags(&mut reader),
        api: sections::api(&mut reader),
        cache: cache::cache(&mut reader),
        archive: archive::archive(&mut reader),
        reconcile: reconcile::reconcile(&mut reader),
        rollback: rollback::rollback(&mut reader),
        rolled_back: rollback::is_rolled_back(&data_dir),
        warnings: Vec::new(),
        settings: changes::Settings::default(),
        data_dir,
    };
    checks::check(&config, &mut reader);
    if config.rolled_back {
        config.flags = Flags::off();
        config.recorder.enabled = false;
    }
    reader.finish();

    config.warnings = std::mem::take(&mut reader.warnings);
    config.settings = std::mem::take(&mut reader.settings);
    let faults = std::mem::take(&mut reader.faults);
    let result = if faults.is_empty() { Ok(config) } else { Err(Errors(tidy(faults, &syntax))) };
    (result, reader)
}

fn open(path: &Path, faults: &mut Vec<Fault>) -> Option<reader::File> {
    let mut fault = |message: String| faults.push(Fault { place: Place::whole(path), key: String::new(), message });
    let file = File::open(path).map_err(|error| fault(format!("cannot read: {error}"))).ok()?;
    let shown = secret::is_shown(&file);
    let bytes = secret::read_bytes(file, document::FILE_BYTES_MAX);
    let bytes = bytes.map_err(|message| fault(format!("cannot read: {message}"))).ok()?;
    let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Some(reader::File { table: document::parse(path, &bytes, faults), base, shown })
}

/// In the order of the file, and without what only follows from a line that is not TOML.
fn tidy(mut faults: Vec<Fault>, syntax: &[Place]) -> Vec<Fault> {
    let mut seen: Vec<&Place> = syntax.iter().collect();
    seen.sort();
    for fault in &mut faults {
        fault.message = one_line(&fault.message);
    }
    let mut kept = faults.split_off(syntax.len());
    kept.retain(|fault| seen.binary_search(&&fault.place).is_err());
    faults.append(&mut kept);
    faults.sort();
    faults.dedup();
    faults
}

/// A fault is one line, also where it shows a path or a value that has several.
fn one_line(message: &str) -> String {
    message.chars().fold(String::with_capacity(message.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
        line
    })
}
