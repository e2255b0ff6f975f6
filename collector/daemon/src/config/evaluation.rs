//! `[llm]` and `[plugins.NAME]`: where models are asked, and where evaluators of one's own run.

use std::net::SocketAddr;
use std::path::PathBuf;

use reqwest::Url;

use super::Secret;
use super::document::{Found, Value};
use super::reader::Reader;
use super::units::{FromValue, text};

/// An OpenAI-compatible endpoint, for judges and for running prompts.
#[derive(Debug)]
pub(crate) struct Llm {
    /// What `/chat/completions` is put behind; none: no model is asked.
    pub base_url: Option<Url>,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// The model that judges, where neither the job nor the template names one.
    pub judge_model: Option<String>,
}

/// Evaluators of one's own.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// As evaluators are named by: NAME/METRIC.
    pub name: String,
    /// Where its code is.
    pub source: PluginSource,
    /// A process's environment.
    pub env: Vec<(String, Secret)>,
}

/// Where a plugin's code is.
#[derive(Debug)]
pub(crate) enum PluginSource {
    /// A process to start.
    Command(Vec<String>),
    /// Where one listens.
    Address(String),
    /// A WebAssembly module.
    Wasm(PathBuf),
}

/// `[llm]`.
pub(super) fn llm(reader: &mut Reader) -> Llm {
    let mut section = reader.section("llm");
    let base_url = section.value_or::<Option<Url>>("base_url", "OPENAI_BASE_URL", None);
    let api_key = section.secret("api_key_file", "OPENAI_API_KEY");
    let judge_model = section.value::<Option<String>>("judge_model", None);
    section.finish();
    Llm { base_url, api_key, judge_model }
}

/// `[plugins.NAME]`, any number.
pub(super) fn plugins(reader: &mut Reader) -> Vec<Plugin> {
    let mut section = reader.section("plugins");
    let plugins = section.rest();
    section.finish();
    let mut all = Vec::new();
    for (name, found) in plugins {
        let mut section = reader.one(format!("plugins.{name}"), found);
        section.check("", emberd_evaluators_hosts::is_name(&name), "a plugin's name has 1 to 64 of a-z, 0-9, - and _");
        let command: Vec<String> = section.value("command", Vec::new());
        let address = section.value::<Option<Address>>("address", None);
        let wasm = section.path("wasm");
        let mut env = section.value("env", Variables::default());
        if !env.0.is_empty() && section.is_shown("env") {
            section.warn("env", "others can read this file: put keys into env_files instead");
        }
        for (name, value) in section.secret_files("env_files") {
            section.check("env_files", is_variable(&name), format!("{name:?} is not a variable's name"));
            env.0.push((name, value));
        }
        section.check(
            "command",
            command.first().is_none_or(|program| !program.is_empty()),
            "the program's name is empty",
        );
        let source = match (command.is_empty(), address, wasm) {
            (false, None, None) => Some(PluginSource::Command(command)),
            (true, Some(address), None) => Some(PluginSource::Address(address.0)),
            (true, None, Some(module)) => Some(PluginSource::Wasm(module)),
            _ => {
                if !section.has_fault("command") && !section.has_fault("address") && !section.has_fault("wasm") {
                    section.fault("", "expected one of `command`, `address` and `wasm`");
                }
                None
            }
        };
        section.finish();
        all.extend(source.map(|source| Plugin { name, source, env: env.0 }));
    }
    all
}

/// Where a plugin listens: `host:port` or a URL.
#[derive(PartialEq)]
struct Address(String);

impl FromValue for Address {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "an address such as \"127.0.0.1:50051\" or \"http://plugin:50051\"";
        let text = text(&found.value, FORM)?;
        if text.parse::<SocketAddr>().is_ok() {
            return Ok(Self(format!("http://{text}")));
        }
        if Url::from_value(found).is_ok() { Ok(Self(text.into())) } else { Err(format!("expected {FORM}")) }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// What a process finds in its environment; may hold keys.
#[derive(Default, PartialEq, Eq)]
struct Variables(Vec<(String, Secret)>);

impl FromValue for Variables {
    fn from_value(found: &Found) -> Result<Self, String> {
        let Value::Table(table) = super::units::untyped(found)? else {
            return Err(format!("expected a table such as {{ KEY = \"value\" }}, found {}", found.value.kind()));
        };
        let mut all = Vec::new();
        for (name, value) in table {
            if !is_variable(&name) {
                return Err(format!("{name:?} is not a variable's name"));
            }
            let value = Secret::new(text(&value.value, "text")?).map_err(|message| format!("{name}: {message}"))?;
            all.push((name, value));
        }
        Ok(Self(all))
    }
}
