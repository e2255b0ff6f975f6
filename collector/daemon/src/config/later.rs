//! Sections that the specification names and emberd does not act on yet: read and checked, so that a file which conforms loads
//! and a slip in it is found, and warned about where they say more than the defaults.

use super::document::Found;
use super::reader::Reader;
use super::units::{FromValue, text};

/// `[archive]`.
pub(super) fn archive(reader: &mut Reader) {
    let mut section = reader.section("archive");
    section.value("url", ArchiveUrl("file".into()));
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
