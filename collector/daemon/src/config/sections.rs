//! The sections that emberd acts on: what each holds, and its defaults.
//!
//! Not here: what two keys must be together (`checks.rs`), sections that are read and not used yet (`later.rs`).

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use emberd_intake::keys::BadKeys;
use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use reqwest::Url;

use super::document::{Found, Value};
use super::faults::Place;
use super::reader::{Reader, Section};
use super::secret::{Secret, SecretFile};
use super::units::{ByteSize, Endpoint, FromValue, Percent, one_of, text};

/// `[intake]`: the OTLP doors.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Where OTLP/gRPC listens.
    pub grpc: SocketAddr,
    /// Where OTLP/HTTP listens.
    pub http: SocketAddr,
    /// The largest request, after decompression.
    pub max_request: ByteSize,
    /// How many bytes of requests may be in memory at once, before further ones are told to come again.
    pub in_flight: ByteSize,
    /// Web pages that may send spans from a browser.
    pub cors_origins: Vec<Origin>,
    /// The keys that may send; none: everyone who reaches the doors, which are on loopback then.
    pub keys: Option<KeysFile>,
}

/// A file of ingest keys, as it was found: readable by its owner and group only, UTF-8, not empty.
#[derive(Debug)]
pub(crate) struct KeysFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it holds.
    pub text: Secret,
}

/// `[log]`: the durable span log.
#[derive(Debug)]
pub(crate) struct Log {
    /// What an acknowledgement waits for.
    pub durability: Durability,
    /// How much disk the log may take, at least two segments.
    pub budget: ByteSize,
    /// How long spans are kept after every consumer has passed, for replay.
    pub keep: Duration,
    /// The size of one file of the log.
    pub segment: ByteSize,
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The disk has it (fdatasync).
    Sync,
    /// The operating system has it: a power cut may lose it.
    Os,
}

/// `[store]`: the database.
#[derive(Debug)]
pub(crate) struct Store {
    /// Which one.
    pub database: Database,
    /// The most connections at once.
    pub max_connections: u32,
}

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    /// SQLite, in this file.
    Sqlite(PathBuf),
    /// PostgreSQL, at this URL, which may hold a password.
    Postgres(Secret),
}

/// `[phoenix]`: the Phoenix that spans are forwarded to and read back from.
#[derive(Debug)]
pub(crate) struct Phoenix {
    /// Its REST API and pages.
    pub url: Url,
    /// Where people look at it; none: at `url`.
    pub public_url: Option<Url>,
    /// Where it takes spans; none: they are not forwarded.
    pub otlp: Option<Endpoint>,
    /// The key to show it.
    pub api_key: Option<SecretFile>,
    /// The key that callers of the API are shown with who are no administrators; none: the same.
    pub member_api_key: Option<SecretFile>,
    /// How long its answers to callers of the API count; zero: none is kept.
    pub cache: Duration,
    /// Whether to read back what it said it took.
    pub verify: bool,
    /// How requests to it are compressed.
    pub compression: Compression,
    /// What it gets when it cannot keep up.
    pub choice: Choice,
}

/// `[phoenix] choose_*`: which traces Phoenix gets when it cannot keep up for good.
#[derive(Debug)]
pub(crate) struct Choice {
    /// The part of the log's budget that may wait for it before it gets a choice; all of it: never a choice.
    pub at: Percent,
    /// How long that must last, while Phoenix takes spans.
    pub after: Duration,
    /// Traces in which a span failed.
    pub errors: bool,
    /// Traces with a span that took so long; zero: length does not matter.
    pub slow: Duration,
    /// Traces of these prompts.
    pub prompts: Vec<String>,
    /// This part of all other traces.
    pub share: Percent,
    /// No more traces a second than this; 0: as many as there are.
    pub traces_per_second: u32,
}

impl Phoenix {
    /// The port of its REST API and pages.
    pub(crate) fn port(&self) -> Option<u16> {
        self.url.port_or_known_default()
    }
}

/// `[[forward]]`: a further OTLP endpoint.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Its name, in the ledger and as a consumer of the log.
    pub name: String,
    /// Where it takes spans.
    pub url: Endpoint,
    /// Headers for each request, by lower-case name; their values may be secrets.
    pub headers: Vec<(String, Secret)>,
    /// The key to show it, as `authorization: Bearer`.
    pub api_key: Option<SecretFile>,
    /// How requests to it are compressed.
    pub compression: Compression,
    /// How many requests may be on their way to it at once.
    pub in_flight: u32,
}

/// How requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// `[recorder]`: how spans become rows.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Whether there is one.
    pub enabled: bool,
    /// Attributes that name a prompt, in this order.
    pub prompt_keys: Vec<String>,
    /// Whether a row keeps the first 4 KiB of input and output.
    pub texts: bool,
    /// How long a trace waits for its root before it gets a row without.
    pub root_wait: Duration,
    /// How long a trace must be quiet before its state is dropped.
    pub quiet: Duration,
    /// A price table of one's own, as JSON; none: the one that emberd brings.
    pub prices: Option<serde_json::Value>,
}

/// `[api]`: REST, metrics, status.
#[derive(Debug)]
pub(crate) struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Web pages of other origins that may call it from a browser.
    pub cors: Vec<Origin>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Requests a second that each user may make in the long run.
    pub rate: u32,
    /// Requests that each user may make at once.
    pub burst: u32,
    /// Whether the log has a summary every five minutes, and what passed a threshold.
    pub summary: bool,
}

/// An address and how many of its leading bits are a network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    /// In it.
    pub address: IpAddr,
    /// At most 32 of IPv4, 128 of IPv6.
    pub bits: u8,
}

/// An origin as browsers write it, such as `https://app.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(pub String);

/// A budget that leaves no room for four segments of the usual size gets smaller ones, down to this.
pub(super) const SEGMENT_MIN: ByteSize = ByteSize::mib(1);
const SEGMENT_USUAL: ByteSize = ByteSize::mib(64);

/// Larger files are not price tables.
const PRICES_BYTES_MAX: u64 = 4 << 20;

/// No duration of a configuration is longer.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

pub(super) fn intake(reader: &mut Reader) -> Intake {
    let mut section = reader.section("intake");
    let intake = Intake {
        grpc: section.value("grpc", SocketAddr::from(([127, 0, 0, 1], 4317))),
        http: section.value("http", SocketAddr::from(([127, 0, 0, 1], 4318))),
        max_request: section.value("max_request", ByteSize::mib(64)),
        in_flight: section.value("in_flight", ByteSize::mib(256)),
        cors_origins: section.value("cors_origins", Vec::new()),
        keys: section.path("keys_file").and_then(|path| keys_file(&mut section, path)),
    };
    // What the log takes as one entry.
    section.check("max_request", intake.max_request <= ByteSize::mib(128), "more than 128MiB");
    section.finish();
    intake
}

fn keys_file(section: &mut Section<'_>, path: PathBuf) -> Option<KeysFile> {
    let keys = super::secret::read_file(&path).and_then(|text| {
        let wrong = |error| match error {
            // Its own text would show the line, and with it the key.
            BadKeys::Form(error) => format!("{}: not a file of keys: {}", path.display(), error.message()),
            other => format!("{}: {other}", path.display()),
        };
        emberd_intake::Keys::parse(&text).map(drop).map_err(wrong)?;
        Secret::several(text)
    });
    let text = keys.map_err(|message| section.fault("keys_file", message)).ok()?;
    section.holds("keys_file", text.reveal());
    Some(KeysFile { path, text })
}

pub(super) fn log(reader: &mut Reader) -> Log {
    let mut section = reader.section("log");
    let Backend::Disk = section.value("backend", Backend::Disk);
    let budget = section.value("budget", ByteSize(20 << 30));
    let segment = section.value("segment", None).unwrap_or_else(|| {
        let quarter = ByteSize((budget.0 / 4) & !0xfff);
        quarter.clamp(SEGMENT_MIN, SEGMENT_USUAL)
    });
    let log = Log {
        durability: section.value("durability", Durability::Sync),
        budget,
        keep: section.value("keep", Duration::from_secs(86_400)),
        segment,
    };
    section.check("keep", log.keep <= YEAR, "longer than a year");
    section.check("segment", log.segment >= SEGMENT_MIN, format!("less than {SEGMENT_MIN}"));
    section.check("segment", log.segment <= ByteSize(4 << 30), "more than 4GiB");
    section.finish();
    log
}

pub(super) fn store(reader: &mut Reader, data_dir: &Path) -> Store {
    let mut section = reader.section("store");
    let database = match section.value_or("url", "DATABASE_URL", DatabaseUrl::Embedded) {
        DatabaseUrl::Embedded => Database::Sqlite(data_dir.join("emberd.db")),
        DatabaseUrl::File(path) => Database::Sqlite(path),
        DatabaseUrl::Postgres { url, password } => {
            if password && section.is_shown("url") {
                section.warn(
                    "url",
                    "holds a password, and others can read this file: set url_file or EMBERD_STORE_URL instead",
                );
            }
            Database::Postgres(url)
        }
    };
    let database = database_file(&mut section, database);
    let max_connections = section.value_or("max_connections", "PHOENIX_MAX_DB_CONNECTIONS", 100);
    // Two: one must be left to read while the recorder writes.
    section.check("max_connections", (2..=10_000).contains(&max_connections), "must be from 2 to 10000");
    section.finish();
    Store { database, max_connections }
}

/// The database that `url_file` names, where it names one.
fn database_file(section: &mut Section<'_>, said: Database) -> Database {
    let Some(file) = section.secret_file("url_file") else { return said };
    section.check("url_file", matches!(section.place_of("url"), Place::Default), "url is set too: set one of them");
    // What is wrong with it is not shown: all of it may be the password.
    let read = |url: &str| DatabaseUrl::new(url).map_err(|_| format!("does not hold {DATABASE_FORM}"));
    let url = file.secret().and_then(|url| read(url.reveal()));
    match url {
        Ok(DatabaseUrl::Postgres { url, .. }) => Database::Postgres(url),
        Ok(_) => {
            section.fault("url_file", "expected \"postgres://..\" in it: a file of SQLite is named by url");
            said
        }
        Err(message) => {
            section.fault("url_file", message);
            said
        }
    }
}

pub(super) fn phoenix(reader: &mut Reader) -> Phoenix {
    let url = |text| Url::parse(text).expect("the default is a URL");
    let mut section = reader.section("phoenix");
    let phoenix = Phoenix {
        url: section.value_or("url", "PHOENIX_INTERNAL_URL", url("http://127.0.0.1:6006")),
        public_url: section.value_or::<Option<Url>>("public_url", "PHOENIX_PUBLIC_URL", None),
        otlp: section.value("otlp", Some(Endpoint::Grpc(url("http://127.0.0.1:14317")))),
        api_key: section.secret_file("api_key_file"),
        member_api_key: section.secret_file("member_api_key_file"),
        cache: {
            let is_on = section.value_or("cache", "PHOENIX_ENABLE_QUERY_CACHE", true);
            let seconds = section.value_or("cache_ttl", "PHOENIX_CACHE_TTL", 300_u32);
            if is_on { Duration::from_secs(seconds.into()) } else { Duration::ZERO }
        },
        verify: section.value("verify", true),
        compression: section.value("compression", Compression::None),
        choice: Choice {
            at: section.value("choose_at", Percent(0.5)),
            after: section.value("choose_after", Duration::from_secs(60)),
            errors: section.value("choose_errors", true),
            slow: section.value("choose_slow", Duration::from_secs(10)),
            prompts: section.value("choose_prompts", Vec::new()),
            share: section.value("choose_share", Percent(0.1)),
            traces_per_second: section.value("choose_traces_per_second", 20),
        },
    };
    section.check("choose_prompts", phoenix.choice.prompts.len() <= 1_000, "more than 1000 names");
    section.check("compression", phoenix.compression != Compression::Zstd, "Phoenix takes only \"none\" or \"gzip\"");
    section.finish();
    phoenix
}

pub(super) fn forward(reader: &mut Reader) -> Vec<Forward> {
    let mut all: Vec<Forward> = Vec::new();
    let Some(found) = reader.repeated("forward") else { return all };
    let items = match found.value {
        Value::List(items) => items,
        other => {
            let message = format!("expected [[forward]], found {}", other.kind());
            reader.fault(found.place, "forward", "", message);
            return all;
        }
    };
    for item in items {
        let mut section = reader.one("[forward]".into(), item);
        if section.is_bare() {
            section.warn("", "has no url: nothing is forwarded");
            continue;
        }
        let Some(one) = forward_one(&mut section) else { continue };
        if all.iter().any(|other| other.name == one.name) {
            section.fault("name", format!("{:?} is the name of two", one.name));
        }
        section.finish();
        all.push(one);
    }
    all
}

fn forward_one(section: &mut Section<'_>) -> Option<Forward> {
    let name: Option<ConsumerName> = section.value("name", None);
    let url = section.value("url", None);
    section.check("name", name.is_some() || section.has_fault("name"), "is missing");
    section.check("url", url.is_some() || section.has_fault("url"), "is missing");
    let headers = section.value("headers", Headers::default());
    if !headers.0.is_empty() && section.is_shown("headers") {
        section.warn("headers", "others can read this file: put keys into api_key_file or header_files instead");
    }
    let mut headers = headers.0;
    for (name, value) in section.secret_files("header_files") {
        match header(&name, value) {
            Ok(header) => headers.push(header),
            Err(message) => section.fault("header_files", message),
        }
    }
    let api_key = section.secret_file("api_key_file");
    let compression = section.value("compression", Compression::Gzip);
    let in_flight = section.value("in_flight", 4);
    section.check("in_flight", (1..=64).contains(&in_flight), "must be from 1 to 64");
    Some(Forward { name: name?.0, url: url?, headers, api_key, compression, in_flight })
}

pub(super) fn recorder(reader: &mut Reader) -> Recorder {
    let mut section = reader.section("recorder");
    let recorder = Recorder {
        enabled: section.value("enabled", true),
        prompt_keys: section.value("prompt_keys", Reading::default().prompt_keys),
        texts: section.value("texts", true),
        root_wait: section.value("root_wait", Duration::from_secs(600)),
        quiet: section.value("quiet", Duration::from_secs(86_400)),
        prices: section.path("prices_file").and_then(|path| prices(&mut section, &path)),
    };
    let keys = &recorder.prompt_keys;
    section.check("prompt_keys", keys.len() <= 32, "more than 32 names");
    section.check(
        "prompt_keys",
        keys.iter().all(|key| (1..=256).contains(&key.len())),
        "a name must have 1 to 256 bytes",
    );
    section.check("root_wait", recorder.root_wait <= YEAR, "longer than a year");
    section.check("quiet", recorder.quiet <= YEAR, "longer than a year");
    section.check("quiet", recorder.quiet >= recorder.root_wait, "must not be shorter than root_wait");
    section.finish();
    recorder
}

fn prices(section: &mut Section<'_>, path: &Path) -> Option<serde_json::Value> {
    let table = std::fs::File::open(path)
        .map_err(|error| error.to_string())
        .and_then(|file| super::secret::read_bounded(file, PRICES_BYTES_MAX))
        .and_then(|text| toml::from_str(&text).map_err(|error| error.message().to_owned()))
        .and_then(|table: serde_json::Value| {
            Prices::from_json(&table).map(|_| table).map_err(|error| error.to_string())
        });
    let message = |message| format!("{}: {message}", path.display());
    let table = table.map_err(|error| section.fault("prices_file", message(error))).ok()?;
    section.holds("prices_file", &table.to_string());
    Some(table)
}

pub(super) fn api(reader: &mut Reader) -> Api {
    let mut section = reader.section("api");
    let api = Api {
        listen: section.value("listen", SocketAddr::from(([127, 0, 0, 1], 8317))),
        cors: section.value("cors", Vec::new()),
        trusted_proxies: section.value("trusted_proxies", Vec::new()),
        rate: section.value("rate", 50),
        burst: section.value("burst", 200),
        summary: section.value_or("summary", "PHOENIX_ENABLE_MONITORING", true),
    };
    section.check("rate", api.rate > 0, "nobody could ask anything");
    section.check("burst", api.burst > 0, "nobody could ask anything");
    section.finish();
    api
}

/// The log's backend; `"kafka"` is refused, for running on the disk instead would not be what was asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backend {
    Disk,
}

impl FromValue for Backend {
    fn from_value(found: &Found) -> Result<Self, String> {
        match text(&found.value, "\"disk\"")? {
            "kafka" => Err("\"kafka\" is not there yet: use \"disk\"".into()),
            _ => one_of(found, &[("disk", Self::Disk)]),
        }
    }
}

impl FromValue for Durability {
    fn from_value(found: &Found) -> Result<Self, String> {
        one_of(found, &[("sync", Self::Sync), ("os", Self::Os)])
    }
}

impl FromValue for Compression {
    fn from_value(found: &Found) -> Result<Self, String> {
        one_of(found, &[("none", Self::None), ("gzip", Self::Gzip), ("zstd", Self::Zstd)])
    }
}

/// A consumer's name: it is a file name and a key of the ledger.
#[derive(PartialEq, Eq)]
struct ConsumerName(String);

impl FromValue for ConsumerName {
    fn from_value(found: &Found) -> Result<Self, String> {
        let name = text(&found.value, "a name")?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match name {
            "phoenix" | "recorder" | "archive" | "live" => {
                Err(format!("{name:?} is the name of one of emberd's own consumers"))
            }
            _ if (1..=32).contains(&name.len()) && name.chars().all(plain) => Ok(Self(name.into())),
            _ => Err("expected 1 to 32 of a-z, 0-9 and -".into()),
        }
    }
}

#[derive(Default, PartialEq, Eq)]
struct Headers(Vec<(String, Secret)>);

impl FromValue for Headers {
    fn from_value(found: &Found) -> Result<Self, String> {
        let Value::Table(table) = super::units::untyped(found)? else {
            return Err(format!("expected a table such as {{ x-tenant = \"a\" }}, found {}", found.value.kind()));
        };
        let mut headers = Vec::new();
        for (name, value) in table {
            let value = Secret::new(text(&value.value, "text")?).map_err(|message| format!("{name}: {message}"))?;
            headers.push(header(&name, value)?);
        }
        Ok(Self(headers))
    }
}

/// A header, if it can be one; the value is not shown.
fn header(name: &str, value: Secret) -> Result<(String, Secret), String> {
    reqwest::header::HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not a header's name"))?;
    reqwest::header::HeaderValue::from_str(value.reveal()).map_err(|_| format!("{name}: not a header's value"))?;
    Ok((name.to_ascii_lowercase(), value))
}

impl FromValue for Origin {
    fn from_value(found: &Found) -> Result<Self, String> {
        let text = text(&found.value, "an origin such as \"https://app.example\"")?.trim();
        let url = Url::from_value(found).map_err(|message| format!("{text:?}: {message}"))?;
        let origin = url.origin().ascii_serialization();
        let bare = text.trim_end_matches('/').eq_ignore_ascii_case(&origin);
        if bare { Ok(Self(origin)) } else { Err(format!("{text:?}: an origin has no path: use {origin:?}")) }
    }
}

impl FromValue for Network {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "a network such as \"10.0.0.0/8\", or an address";
        let text = text(&found.value, FORM)?.trim();
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let wrong = || format!("{text:?}: expected {FORM}");
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits <= most { Ok(Self { address, bits }) } else { Err(wrong()) }
    }
}

#[derive(PartialEq, Eq)]
enum DatabaseUrl {
    Embedded,
    File(PathBuf),
    Postgres { url: Secret, password: bool },
}

impl FromValue for DatabaseUrl {
    fn from_value(found: &Found) -> Result<Self, String> {
        Self::new(text(&found.value, DATABASE_FORM)?.trim())
    }
}

const DATABASE_FORM: &str = "\"sqlite\", \"sqlite:FILE\" or \"postgres://..\"";

impl DatabaseUrl {
    /// The error does not show the address: it may hold a password.
    fn new(text: &str) -> Result<Self, String> {
        const FORM: &str = DATABASE_FORM;
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        match scheme {
            "sqlite" if rest.is_empty() => Ok(Self::Embedded),
            "sqlite" => match rest.strip_prefix("//").unwrap_or(rest) {
                "" | ":memory:" => Err("the database must be a file: the cursor in it must survive".into()),
                path => Ok(Self::File(path.into())),
            },
            "postgres" | "postgresql" => {
                // Not shown: it may hold a password.
                let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
                let password = url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password");
                Ok(Self::Postgres { url: Secret::new(text)?, password })
            }
            "" => Err(format!("expected {FORM}")),
            scheme => Err(format!("expected {FORM}, found {scheme}:")),
        }
    }
}
