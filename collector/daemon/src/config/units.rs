//! What a key may hold: sizes, durations, addresses, URLs, words of a list. Text is read once, here, into types that cannot be
//! wrong afterwards.
//!
//! Not here: which key holds which (`sections.rs`); what two keys must be together (`checks.rs`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::document::{Found, Value, parse_inline};
use super::faults::Place;

/// A value that a key can have. The error says what was expected, in words that follow the key's name.
pub(super) trait FromValue: Sized {
    fn from_value(found: &Found) -> Result<Self, String>;
}

/// A value that stands in no file.
pub(super) fn parse<T: FromValue>(text: &str) -> Result<T, String> {
    T::from_value(&Found { value: Value::Text(text.to_owned()), place: Place::Default })
}

/// A number of bytes, written as `"64MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ByteSize(pub u64);

impl ByteSize {
    /// So many MiB.
    #[must_use]
    pub(crate) const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

/// Binary and decimal units, as IEC and SI name them.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) =
            SIZE_UNITS.into_iter().find(|(_, bytes)| self.0 != 0 && self.0.is_multiple_of(*bytes)).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl FromValue for ByteSize {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "a size such as \"64MiB\"";
        let size = match &found.value {
            Value::Whole(bytes) => positive(*bytes, "bytes")?,
            other => {
                let (number, unit) = split_unit(text(other, FORM)?);
                let bytes = match SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
                    Some((_, bytes)) => *bytes,
                    None if unit.is_empty() => 1,
                    None => {
                        return Err(format!("unknown unit {unit:?}: use B, KiB, MiB, GiB or TiB (or kB, MB, GB, TB)"));
                    }
                };
                positive(whole(number, FORM)?, "bytes")?.checked_mul(bytes).ok_or("too large")?
            }
        };
        match size {
            0 => Err("must be more than zero".into()),
            _ => Ok(Self(size)),
        }
    }
}

impl FromValue for Duration {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "a duration such as \"24h\", \"90s\" or \"1h30m\"";
        let mut rest = match &found.value {
            Value::Whole(_) => return Err(format!("a duration needs a unit: expected {FORM}")),
            other => text(other, FORM)?.trim(),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        let mut sum = Self::ZERO;
        while {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let unit_len = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_len);
            let count = positive(whole(number, FORM)?, "time")?;
            let part = match unit {
                "ms" => Some(Self::from_millis(count)),
                "s" => Some(Self::from_secs(count)),
                "m" | "min" => count.checked_mul(60).map(Self::from_secs),
                "h" => count.checked_mul(3_600).map(Self::from_secs),
                "d" => count.checked_mul(86_400).map(Self::from_secs),
                "" => return Err(format!("a duration needs a unit: expected {FORM}")),
                _ => return Err(format!("unknown unit {unit:?}: use ms, s, m, h or d")),
            };
            sum = part.and_then(|part| sum.checked_add(part)).ok_or("too long")?;
            rest = after.trim_start();
            !rest.is_empty()
        } {}
        Ok(sum)
    }
}

/// A part of something, from 0 to 1; written as percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percent(pub f64);

impl FromValue for Percent {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "a part from \"0%\" to \"100%\"";
        let text = text(&found.value, FORM)?.trim();
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match number {
            Some(percent) if (0.0..=100.0).contains(&percent) => Ok(Self(percent / 100.0)),
            _ => Err(format!("expected {FORM}, found {text:?}")),
        }
    }
}

impl FromValue for SocketAddr {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "an address and port such as \"127.0.0.1:4317\" or \"[::1]:4317\"";
        let text = text(&found.value, FORM)?.trim();
        // The one name that needs no look-up; any other would make the start depend on a name server.
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        match local {
            Some(port) => Ok(Self::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            None => text.parse().map_err(|_| format!("expected {FORM}, found {text:?}")),
        }
    }
}

/// Where OTLP goes to, by which of its two transports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// OTLP/gRPC; the URL is `http://` or, with TLS, `https://`, and has no path.
    Grpc(Url),
    /// OTLP/HTTP; the URL's path is the one to post to, and ends with `/v1/traces`.
    Http(Url),
}

impl FromValue for Endpoint {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "\"grpc://host:4317\", or \"https://host:4318/v1/traces\" for OTLP/HTTP";
        let text = text(&found.value, FORM)?.trim();
        let plain = match text.split_once("://") {
            Some(("grpc", rest)) => format!("http://{rest}"),
            Some(("grpcs", rest)) => format!("https://{rest}"),
            _ => text.to_owned(),
        };
        let url = web_url(&plain)?;
        match url.path() {
            "" | "/" if text.starts_with("http") || text.starts_with("grpc") => Ok(Self::Grpc(url)),
            path if path.ends_with("/v1/traces") && text.starts_with("http") => Ok(Self::Http(url)),
            path => Err(format!("the path {path:?} is not one of OTLP's: expected {FORM}")),
        }
    }
}

impl FromValue for Url {
    fn from_value(found: &Found) -> Result<Self, String> {
        web_url(text(&found.value, "a URL such as \"http://127.0.0.1:6006\"")?.trim())
    }
}

/// The text is not shown in the error: a URL may hold a password.
fn web_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    match (url.scheme(), url.has_host()) {
        ("http" | "https", true) if url.query().is_some() || url.fragment().is_some() => {
            Err("a URL without `?` and `#` is expected".into())
        }
        // It would show in logs, in pages and in this file.
        ("http" | "https", true) if url.password().is_some() => {
            Err("holds a password: a key goes into a file of its own".into())
        }
        ("http" | "https", true) => Ok(url),
        (scheme, _) => Err(format!("expected a URL that begins with http:// or https://, found {scheme}:")),
    }
}

impl FromValue for PathBuf {
    fn from_value(found: &Found) -> Result<Self, String> {
        match text(&found.value, "a path")? {
            "" => Err("the path is empty".into()),
            path if path.contains('\0') => Err("the path holds a NUL".into()),
            path => Ok(path.into()),
        }
    }
}

impl FromValue for bool {
    fn from_value(found: &Found) -> Result<Self, String> {
        match &found.value {
            Value::Truth(truth) => Ok(*truth),
            Value::Untyped(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(format!("expected true or false, found {text:?}")),
            },
            other => Err(format!("expected true or false without quotes, found {}", other.kind())),
        }
    }
}

impl FromValue for u32 {
    fn from_value(found: &Found) -> Result<Self, String> {
        const FORM: &str = "a whole number";
        let number = match &found.value {
            Value::Whole(number) => *number,
            Value::Untyped(text) => whole(text.trim(), FORM)?,
            other => return Err(format!("expected {FORM}, found {}", other.kind())),
        };
        u32::try_from(positive(number, "number")?).map_err(|_| "too large".into())
    }
}

impl FromValue for String {
    fn from_value(found: &Found) -> Result<Self, String> {
        text(&found.value, "text").map(str::to_owned)
    }
}

/// An empty text is how a key says "none".
impl<T: FromValue> FromValue for Option<T> {
    fn from_value(found: &Found) -> Result<Self, String> {
        match &found.value {
            Value::Text(text) | Value::Untyped(text) if text.trim().is_empty() => Ok(None),
            _ => T::from_value(found).map(Some),
        }
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(found: &Found) -> Result<Self, String> {
        let each = |items: &[Found]| items.iter().map(T::from_value).collect();
        match untyped(found)? {
            Value::List(items) => each(&items),
            Value::Untyped(text) => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                let item = |word: &str| Found { value: Value::Untyped(word.into()), place: found.place.clone() };
                each(&words.map(item).collect::<Vec<_>>())
            }
            other => Err(format!("expected a list, found {}", other.kind())),
        }
    }
}

/// A value from the environment that is written as a TOML list or table becomes one.
pub(super) fn untyped(found: &Found) -> Result<Value, String> {
    match &found.value {
        Value::Untyped(text) if text.trim_start().starts_with(['[', '{']) => parse_inline(text.trim(), &found.place),
        other => Ok(other.clone()),
    }
}

/// The text of a value.
pub(super) fn text<'v>(value: &'v Value, form: &str) -> Result<&'v str, String> {
    match value {
        Value::Text(text) | Value::Untyped(text) => Ok(text),
        other => Err(format!("expected {form}, found {}", other.kind())),
    }
}

/// The one of the words that the text is.
pub(super) fn one_of<T: Copy>(found: &Found, words: &[(&str, T)]) -> Result<T, String> {
    let names = || words.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
    let text = text(&found.value, &names())?;
    let word = words.iter().find(|(name, _)| *name == text);
    word.map(|(_, word)| *word).ok_or_else(|| format!("expected {}, found {text:?}", names()))
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number.trim(), unit)
}

/// A whole number; none inside if it is one, but beyond 128 bits.
fn whole(digits: &str, form: &str) -> Result<Option<i128>, String> {
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|c| c.is_ascii_digit()) {
        return Err(format!("expected {form}, found {digits:?}"));
    }
    Ok(digits.parse().ok())
}

fn positive(number: Option<i128>, what: &str) -> Result<u64, String> {
    match number {
        Some(number) if number < 0 => Err(format!("negative {what}: {number}")),
        Some(number) => u64::try_from(number).map_err(|_| "too large".into()),
        None => Err("too large".into()),
    }
}
