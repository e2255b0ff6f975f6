//! `emberd log inspect | verify`: which segments there are, and whether every byte of them is what was written.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use emberd_log::inspect::{self, Checked, Header};
use serde_json::{Value, json};

use super::Where;
use super::books::{Place, bar};
use crate::told;
use crate::wiring::LOG_NAME;

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// List the segments by their headers
    Inspect {
        #[command(flatten)]
        place: Where,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Read every record and check it; exit 1 when spans that were acknowledged cannot be read
    Verify {
        #[command(flatten)]
        place: Where,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let (place, json, verify) = match &options.what {
        What::Inspect { place, json } => (place, *json, false),
        What::Verify { place, json } => (place, *json, true),
    };
    let place = match Place::open(place) {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let (found, mut unknown) = inspect::segments(&*place.disk, &place.log_dir())?;
    unknown.retain(|name| name != LOG_NAME);
    let progress = bar(found.len() as u64, "checking");
    let (mut told, mut damaged, mut spans) = (Vec::new(), 0, 0);
    for segment in &found {
        let mut line = header(segment);
        if verify {
            if let Some(checked) = inspect::verify(&*place.disk, segment)? {
                damaged += checked.damaged.iter().map(|damage| damage.to.since(damage.from)).sum::<u64>();
                spans += checked.spans;
                add(&mut line, &checked);
            }
            progress.inc(1);
        }
        told.push(line);
    }
    progress.finish_and_clear();
    if json {
        println!("{:#}", json!({ "segments": told, "unknown_files": unknown, "damaged_spans": damaged }));
    } else {
        told.iter().for_each(|line| println!("{}", text(line)));
        unknown.iter().for_each(|name| println!("{name}: not the log's; it is left alone"));
        if verify {
            println!("{spans} spans read, {damaged} damaged");
        }
    }
    Ok(if damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn header(segment: &inspect::Found) -> Value {
    let mut line = json!({ "segment": segment.id.0, "file": segment.path, "file_bytes": segment.file_bytes });
    match segment.header {
        Header::Written { base, made_at } => {
            line["state"] = "written".into();
            line["first_span"] = base.0.into();
            line["begun"] = told::moment(made_at.micros()).into();
        }
        Header::Blank => line["state"] = "prepared".into(),
        Header::Damaged => line["state"] = "its header is damaged".into(),
        Header::Future { version } => line["state"] = format!("of a newer format, {version}").into(),
        Header::Foreign => line["state"] = "not a segment".into(),
    }
    line
}

fn add(line: &mut Value, checked: &Checked) {
    line["first_span"] = checked.base.0.into();
    line["end"] = checked.end.0.into();
    line["records"] = checked.records.into();
    line["spans"] = checked.spans.into();
    line["body_bytes"] = checked.body_bytes.into();
    line["torn_bytes"] = checked.torn_bytes.into();
    let damaged =
        checked.damaged.iter().map(|damage| json!({ "at": damage.at, "from": damage.from.0, "to": damage.to.0 }));
    line["damaged"] = damaged.collect();
    if let Some((first, last)) = checked.received {
        line["received"] = json!([told::moment(first.micros()), told::moment(last.micros())]);
    }
}

fn text(line: &Value) -> String {
    let state = line["state"].as_str().unwrap_or("?");
    let mut text = format!("segment {:<6} {state:<10} {} bytes", line["segment"], line["file_bytes"]);
    if let Some(first) = line["first_span"].as_u64() {
        text += &format!(", from span {first}");
    }
    if let Some(begun) = line["begun"].as_str() {
        text += &format!(", begun {begun}");
    }
    if let Some(end) = line["end"].as_u64() {
        text += &format!(", to span {end}: {} records, {} spans", line["records"], line["spans"]);
    }
    for damage in line["damaged"].as_array().into_iter().flatten() {
        text += &format!("\n  DAMAGED at byte {}: spans {} to {}", damage["at"], damage["from"], damage["to"]);
    }
    if line["torn_bytes"].as_u64().is_some_and(|torn| torn > 0) {
        text += &format!("\n  {} bytes of a write that nobody was told of", line["torn_bytes"]);
    }
    text
}
