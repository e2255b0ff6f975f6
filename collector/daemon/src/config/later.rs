//! Sections that the specification names and emberd does not act on yet: read and checked, so that a file which conforms loads
//! and a slip in it is found, and warned about where they say more than the defaults.

use super::document::{Found, Value};
use super::reader::Reader;
use super::units::{FromValue, text};

/// `[archive]`.
pub(super) fn archive(reader: &mut Reader) {
    let mut section = reader.section("archive");
    section.value("url", ArchiveUrl("file".into()));
    section.finish_unused();
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
