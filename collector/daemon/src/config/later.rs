//! Sections that the specification names and emberd does not act on yet: read and checked, so that a file which conforms loads
//! and a slip in it is found, and warned about where they say more than the defaults.

use std::net::SocketAddr;

use reqwest::Url;

use super::document::{Found, Value};
use super::reader::Reader;
use super::units::{FromValue, text};

/// `[archive]`.
pub(super) fn archive(reader: &mut Reader) {
    let mut section = reader.section("archive");
    section.value("url", ArchiveUrl("file".into()));
    section.finish_unused();
}

/// `[llm]`. The environment's own names for it are common, so they are not worth a warning.
pub(super) fn llm(reader: &mut Reader) {
    let mut section = reader.section("llm");
    section.value_or::<Option<Url>>("base_url", "OPENAI_BASE_URL", None);
    section.secret("api_key_file", "OPENAI_API_KEY");
    section.finish_unused();
}

/// `[plugins.NAME]`, any number.
pub(super) fn plugins(reader: &mut Reader) {
    let mut section = reader.section("plugins");
    let plugins = section.rest();
    section.finish();
    for (name, found) in plugins {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let mut section = reader.one(format!("plugins.{name}"), found);
        section.check(
            "",
            (1..=64).contains(&name.len()) && name.chars().all(plain),
            "a plugin's name has 1 to 64 of a-z, 0-9, - and _",
        );
        let command: Vec<String> = section.value("command", Vec::new());
        let address = section.value::<Option<Address>>("address", None);
        if command.is_empty() != address.is_none() {
            section.check(
                "command",
                command.first().is_none_or(|program| !program.is_empty()),
                "the program's name is empty",
            );
        } else if !section.has_fault("command") && !section.has_fault("address") {
            section.fault("", "expected either `command` or `address`");
        }
        section.finish_unused();
    }
}

/// `[identity]`; says whether callers must show tokens.
pub(super) fn identity(reader: &mut Reader) -> bool {
    let mut section = reader.section("identity");
    let tokens = section.secret("jwt_secret_file", "SHARED_JWT_SECRET").is_some();
    section.value("accept_plain", false);
    if tokens {
        section
            .warn("jwt_secret_file", "tokens cannot be checked yet: the API answers nothing but /healthz and /readyz");
    }
    section.finish();
    tokens
}

/// `[flags]`.
pub(super) fn flags(reader: &mut Reader) {
    let mut section = reader.section("flags");
    for (name, rollout) in [("evaluations", 100), ("traces", 100), ("experiments", 50), ("advancedMetrics", 25)] {
        section.value(name, Flag { enabled: true, rollout });
    }
    section.finish_unused();
}

#[derive(PartialEq)]
struct ArchiveUrl(String);

impl FromValue for ArchiveUrl {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "\"file\" or \"s3://bucket/prefix\"";
        let text = text(&found.value, FORM)?;
        let bucket = text.strip_prefix("s3://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
        if text == "file" || bucket { Ok(Self(text.into())) } else { Err(format!("expected {FORM}")) }
    }
}

/// Where a plugin listens: `host:port` or a URL.
#[derive(PartialEq)]
struct Address(String);

impl FromValue for Address {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "an address such as \"127.0.0.1:50051\" or \"http://plugin:50051\"";
        let text = text(&found.value, FORM)?;
        let good = text.parse::<SocketAddr>().is_ok() || Url::from_value(found).is_ok();
        if good { Ok(Self(text.into())) } else { Err(format!("expected {FORM}")) }
    }
}

#[derive(PartialEq)]
struct Flag {
    enabled: bool,
    rollout: u32,
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
