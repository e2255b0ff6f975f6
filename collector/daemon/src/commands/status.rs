//! `emberd status`: how the running daemon is, for people and for scripts.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::Where;
use crate::run_file::RunFile;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// The whole status as JSON
    #[arg(long)]
    json: bool,
}

/// A daemon that does not answer within this is as good as down.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let config = match options.place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let api = RunFile::api(&config.data_dir).unwrap_or_else(|| format!("http://{}", config.api.listen));
    let status = match ask(&api).await {
        Ok(status) => status,
        Err(error) => {
            eprintln!("emberd does not answer at {api} (data directory {}): {error:#}", config.data_dir.display());
            return Ok(ExitCode::FAILURE);
        }
    };
    if options.json {
        println!("{status:#}");
    } else {
        print!("{}", told(&status));
    }
    Ok(if status["healthy"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask(api: &str) -> anyhow::Result<Value> {
    let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
    Ok(http.get(format!("{api}/api/status")).send().await?.error_for_status()?.json().await?)
}

/// The status as a page of text.
fn told(status: &Value) -> String {
    let (ledger, log) = (&status["ledger"], &status["log"]);
    let mut page = String::new();
    let mut line = |name: &str, text: String| page.push_str(&format!("{name:<12}{text}\n"));
    let health = if status["healthy"] == true { "healthy" } else { "degraded" };
    line("emberd", format!("{health}, version {}, up {}", text(&status["version"]), duration(&status["uptime_s"])));
    line(
        "received",
        format!(
            "{} spans = {} accepted + {} rejected + {} refused",
            ledger["received_spans"], ledger["accepted_spans"], ledger["rejected_spans"], ledger["refused_spans"]
        ),
    );
    line(
        "log",
        format!(
            "{} of {} in {} segments, spans {} to {}",
            bytes(&log["bytes"]),
            bytes(&log["budget"]),
            log["segments"],
            log["tail"],
            log["head"]
        ),
    );
    for (name, consumer) in ledger["consumers"].as_object().into_iter().flatten() {
        let words = match consumer["verified"].is_null() {
            false => &["sent", "verified", "pending"][..],
            true if !consumer["sent"].is_null() => &["sent", "done", "pending"],
            true => &["done", "pending"],
        };
        let mut parts: Vec<String> = words.iter().map(|word| format!("{} {word}", consumer[word])).collect();
        for word in ["duplicate", "quarantined", "shed", "lost"] {
            if consumer[word].as_u64().is_some_and(|spans| spans > 0) {
                let reasons = consumer["reasons"][word].as_object().into_iter().flatten();
                let reasons: Vec<String> = reasons.map(|(reason, spans)| format!("{reason} {spans}")).collect();
                let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
                parts.push(format!("{} {word}{why}", consumer[word]));
            }
        }
        let mut told = parts.join(", ");
        if consumer["failing"] == true {
            told.push_str(&format!("; FAILING: {}", text(&consumer["last_error"])));
        }
        line(name, told);
    }
    line(
        "database",
        format!(
            "{}, {} of {} connections in use",
            text(&status["database"]["kind"]),
            status["database"]["pool"]["in_use"],
            status["database"]["pool"]["max"]
        ),
    );
    let deleted: Vec<String> = status["retention"]["deleted"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(table, rows)| format!("{rows} {table}"))
        .collect();
    if !deleted.is_empty() {
        line("let go", format!("{} since the start", deleted.join(", ")));
    }
    if let Some(error) = status["retention"]["failing"].as_str() {
        line("!", format!("what is too old stays: {error}"));
    }
    if let Some(error) = status["database"]["error"].as_str() {
        line("!", format!("the database: {error}"));
    }
    for reason in status["reasons"].as_array().into_iter().flatten() {
        line("!", text(reason).to_owned());
    }
    page
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn bytes(value: &Value) -> String {
    let bytes = value.as_f64().unwrap_or(0.0);
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (bytes.max(1.0).log2() / 10.0).floor().min(4.0);
    format!("{:.1} {}", bytes / 1024_f64.powf(step), units[step as usize])
}

fn duration(seconds: &Value) -> String {
    let s = seconds.as_u64().unwrap_or(0);
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        _ => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}
