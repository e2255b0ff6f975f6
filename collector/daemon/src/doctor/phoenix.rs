//! Phoenix: there, of a version that is known, its key good for reading and writing, its OTLP port open, its queue not full.

use std::time::Duration;

use emberd_consumers::forwarder;
use emberd_model::UnixNanos;
use emberd_phoenix::client::Error;
use emberd_phoenix::examine::KNOWN_VERSION;
use serde_json::Value;
use time::PrimitiveDateTime;
use time::macros::format_description;

use super::{Finding, Patient, QUESTION, database, told};
use crate::run_file::RunFile;
use crate::settings::PHOENIX;

pub(super) async fn look(patient: Patient) -> Vec<Finding> {
    let config = &patient.config.phoenix;
    let (api, otlp, backlog) = tokio::join!(api(&patient), otlp(&patient), backlog(&patient));
    let mut findings = api;
    match config.otlp {
        Some(_) => findings.extend(otlp.into_iter().chain(backlog)),
        None => findings.push(Finding::ok("phoenix otlp", "nothing is forwarded: [phoenix] otlp is empty")),
    }
    findings
}

async fn api(patient: &Patient) -> Vec<Finding> {
    let config = &patient.config.phoenix;
    // Nobody needs it where nothing is sent to it; that it is not there is then only worth a word.
    let is_needed = config.otlp.is_some();
    let bad = |check: &str, found: String, advice: &str| match is_needed {
        true => Finding::failed(check, found, advice),
        false => Finding::warning(check, found, advice),
    };
    let client = match config.client_within(QUESTION) {
        Ok(client) => client,
        Err(error) => {
            return vec![bad("phoenix", format!("{error:#}"), "see [phoenix] url and api_key_file")];
        }
    };
    let before = patient.clock.now();
    let there = match client.examine().await {
        Ok(there) => there,
        Err(error) => {
            let advice = "start Phoenix, or set [phoenix] url to where it listens; spans are kept until it is there";
            return vec![bad("phoenix", format!("{}: {}", config.url, told(&error)), advice)];
        }
    };
    let after = patient.clock.now();
    let mut findings = vec![version(&there.version)];
    for (check, may, what) in [("phoenix reading", &there.reads, "read"), ("phoenix writing", &there.writes, "write")] {
        findings.push(match may {
            Ok(()) => Finding::ok(check, format!("the key may {what}")),
            Err(Error::Unauthorized { status }) if status.as_u16() == 401 => {
                let found = if config.api_key.is_some() { "the key is not taken (401)" } else { "a key is asked for (401)" };
                bad(check, found.to_owned(), "make a system key in Phoenix (Settings, API keys) and put it into the file of [phoenix] api_key_file")
            }
            Err(Error::Unauthorized { status }) => {
                let advice = "the key's user may not: take a system key, or one of an administrator or member";
                bad(check, format!("the key may not {what} ({status})"), advice)
            }
            Err(error) => Finding::warning(check, told(&error), "see Phoenix's own log"),
        });
    }
    if let Some(date) = there.date.as_deref().and_then(parse_date) {
        // Told to the second, rounded down.
        let second = 1_000_000_000;
        findings.push(database::skew("clock of phoenix", date, UnixNanos(before.0.saturating_sub(second)), after));
    }
    findings
}

fn version(version: &str) -> Finding {
    let found = format!("version {version}");
    let major = |text: &str| text.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match (major(version), major(KNOWN_VERSION)) {
        (Some(theirs), Some(known)) if theirs == known => Finding::ok("phoenix", found),
        (Some(theirs), Some(known)) if theirs > known => {
            let advice = format!(
                "newer than {KNOWN_VERSION}, which this emberd was run against: watch the forwarder, or update emberd"
            );
            Finding::warning("phoenix", found, advice)
        }
        _ => Finding::warning("phoenix", found, format!("this emberd was run against {KNOWN_VERSION}: update Phoenix")),
    }
}

/// As HTTP writes dates.
fn parse_date(text: &str) -> Option<UnixNanos> {
    let form =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let date = PrimitiveDateTime::parse(text, form).ok()?.assume_utc();
    u64::try_from(date.unix_timestamp_nanos()).ok().map(UnixNanos)
}

async fn otlp(patient: &Patient) -> Option<Finding> {
    let targets = patient.config.targets().ok()?;
    let target = targets.into_iter().find(|target| target.name == PHOENIX)?;
    Some(probe("phoenix otlp", "[phoenix] otlp", &target, patient).await)
}

/// What an endpoint says to an export without a span.
pub(super) async fn probe(check: &str, key: &str, target: &forwarder::Config, patient: &Patient) -> Finding {
    let url = match &target.endpoint {
        forwarder::Endpoint::Grpc(url) | forwarder::Endpoint::Http(url) => url.trim_end_matches('/').to_owned(),
    };
    match forwarder::probe(target, QUESTION, patient.clock.clone()).await {
        Err(error) => Finding::failed(check, told(&error), format!("see {key} and its key")),
        Ok(Ok(())) => Finding::ok(check, format!("{url} takes spans")),
        Ok(Err(refusal)) => {
            let found = format!("{url}: {refusal}");
            match refusal.class {
                "busy" => {
                    Finding::warning(check, found, "its queue is full: spans wait in the log until it has caught up")
                }
                "unauthorized" => Finding::failed(
                    check,
                    found,
                    format!("put a key that may write into the api_key_file beside {key}"),
                ),
                "misdirected" => Finding::failed(
                    check,
                    found,
                    format!("nobody takes spans there: set {key} to the OTLP port or path"),
                ),
                _ => Finding::failed(
                    check,
                    found,
                    format!("start it, or set {key} to where it listens; spans are kept until then"),
                ),
            }
        }
    }
}

/// How far a running daemon is behind, as far as it tells without a token.
async fn backlog(patient: &Patient) -> Option<Finding> {
    let run = RunFile::read(&patient.config.data_dir).filter(RunFile::is_alive)?;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).build().ok()?;
    let answer = http.get(format!("{}/api/status", run.api_url())).send().await.ok()?.error_for_status().ok()?;
    let status: Value = answer.json().await.ok()?;
    let consumer = &status["ledger"]["consumers"][PHOENIX];
    let (pending, shed) = (consumer["pending"].as_u64()?, consumer["shed"].as_u64().unwrap_or(0));
    let found = format!("{pending} spans wait for it, {shed} were shed");
    if consumer["failing"] == true {
        let error = consumer["last_error"].as_str().unwrap_or("it fails").chars().take(200).collect::<String>();
        return Some(Finding::warning("phoenix backlog", format!("{found}: {error}"), "see `emberd status`"));
    }
    Some(Finding::ok("phoenix backlog", found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_read() {
        let date = parse_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(date.0, 784_111_777_000_000_000);
        assert_eq!(parse_date("yesterday"), None);
    }
}
