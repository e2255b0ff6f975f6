//! `[cache]`: what is kept of what was read, and the Redis that all emberds share.

use reqwest::Url;

use super::document::Found;
use super::reader::{Reader, Section};
use super::secret::Secret;
use super::units::{FromValue, text};

/// `[cache]`.
#[derive(Debug)]
pub(crate) struct Cache {
    /// The Redis, whose address may hold a password; none: each emberd has its memory alone.
    pub redis: Option<Secret>,
    /// What all names in it begin with.
    pub prefix: String,
    /// Profiles that are kept in memory; 0: what a login reads is read each time.
    pub users: u32,
    /// Phoenix's answers that are kept in memory.
    pub answers: u32,
}

pub(super) fn cache(reader: &mut Reader) -> Cache {
    let mut section = reader.section("cache");
    let logins = section.value_or("logins", "PHOENIX_ENABLE_AUTH_CACHE", true);
    let users = section.value("users", 10_000);
    let cache = Cache {
        redis: redis(&mut section),
        prefix: section.value("prefix", Prefix("emberd".to_owned())).0,
        users: if logins { users } else { 0 },
        answers: section.value("answers", 500),
    };
    section.check("users", (1..=1_000_000).contains(&users), "must be from 1 to 1000000");
    section.check("answers", (1..=100_000).contains(&cache.answers), "must be from 1 to 100000");
    section.finish();
    cache
}

fn redis(section: &mut Section<'_>) -> Option<Secret> {
    let said = section.value_or::<Option<RedisUrl>>("redis_url", "REDIS_URL", None);
    if said.as_ref().is_some_and(|url| url.has_password) && section.is_shown("redis_url") {
        section.warn("redis_url", "holds a password, and others can read this file: set redis_url_file instead");
    }
    let said = said.map(|url| url.url);
    let Some(file) = section.secret_file("redis_url_file") else { return said };
    section.check("redis_url_file", said.is_none(), "redis_url is set too: set one of them");
    let read = file.secret().and_then(|url| RedisUrl::new(url.reveal()));
    read.map_err(|message| section.fault("redis_url_file", message)).ok().map(|url| url.url)
}

#[derive(PartialEq, Eq)]
struct RedisUrl {
    url: Secret,
    has_password: bool,
}

const FORM: &str = "\"redis://HOST:PORT/DATABASE\", \"rediss://..\" with TLS, or \"unix:///PATH\"";

impl RedisUrl {
    /// The error does not show the address: it may hold a password.
    fn new(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}: expected {FORM}"))?;
        let database = url.path().trim_start_matches('/');
        match url.scheme() {
            "unix" => (),
            "redis" | "rediss" if url.host_str().is_none_or(str::is_empty) => {
                return Err(format!("names no host: expected {FORM}"));
            }
            "redis" | "rediss" if database.is_empty() || database.parse::<u16>().is_ok() => (),
            "redis" | "rediss" => return Err(format!("names no database by its number: expected {FORM}")),
            scheme => return Err(format!("expected {FORM}, found {scheme}:")),
        }
        Ok(Self { url: Secret::new(text)?, has_password: url.password().is_some() })
    }
}

impl FromValue for RedisUrl {
    fn from_value(found: &Found) -> Result<Self, String> {
        Self::new(text(&found.value, FORM)?.trim())
    }
}

#[derive(PartialEq, Eq)]
struct Prefix(String);

impl FromValue for Prefix {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "1 to 64 of a-z, A-Z, 0-9, -, _, . and :";
        let text = text(&found.value, FORM)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let is_good = (1..=64).contains(&text.len()) && text.chars().all(plain);
        if is_good { Ok(Self(text.to_owned())) } else { Err(format!("expected {FORM}")) }
    }
}
