//! `[rollback]`, and whether emberd was rolled back: a file in the data directory says so, which `emberd rollback` writes and
//! `emberd migrate up` removes.

use std::path::Path;

use reqwest::Url;

use super::document::Found;
use super::flags::{Flag, Flags};
use super::reader::{Reader, Section};
use super::secret::Secret;
use super::units::{FromValue, text};

/// The file that says so, in the data directory.
pub(crate) const ROLLED_BACK: &str = "rolled-back";

/// `[rollback]`.
#[derive(Debug)]
pub(crate) struct Rollback {
    /// Whom to tell; its address may hold a token.
    pub webhook: Option<Secret>,
}

pub(super) fn rollback(reader: &mut Reader) -> Rollback {
    let mut section = reader.section("rollback");
    let webhook = webhook(&mut section);
    section.finish();
    Rollback { webhook }
}

fn webhook(section: &mut Section<'_>) -> Option<Secret> {
    let said = section.value::<Option<Webhook>>("webhook", None).map(|webhook| webhook.0);
    let Some(file) = section.secret_file("webhook_file") else { return said };
    section.check("webhook_file", said.is_none(), "webhook is set too: set one of them");
    let read = file.secret().and_then(|url| Webhook::new(url.reveal()));
    read.map_err(|message| section.fault("webhook_file", message)).ok().map(|webhook| webhook.0)
}

/// Whether the tables were taken away.
pub(super) fn is_rolled_back(data_dir: &Path) -> bool {
    data_dir.join(ROLLED_BACK).exists()
}

impl Flags {
    /// Every part off, for everyone.
    pub(super) fn off() -> Self {
        let off = Flag { enabled: false, rollout: 0 };
        Self { evaluations: off, traces: off, experiments: off, advanced_metrics: off }
    }
}

#[derive(PartialEq, Eq)]
struct Webhook(Secret);

impl Webhook {
    /// The error does not show the address.
    fn new(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        match (url.scheme(), url.has_host()) {
            ("http" | "https", true) => Secret::new(text).map(Self),
            (scheme, _) => Err(format!("expected a URL that begins with http:// or https://, found {scheme}:")),
        }
    }
}

impl FromValue for Webhook {
    fn from_value(found: &Found) -> Result<Self, String> {
        Self::new(text(&found.value, "a URL")?.trim())
    }
}
