//! `emberd quarantine list | show | retry | drop`: what could not be delivered or recorded.
//!
//! A decision is written beside the item, and done by its consumer when emberd runs: the ledger moves with it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use emberd_consumers::quarantine::{Decision, Item, Quarantine};
use serde_json::json;

use super::Where;
use super::books::Place;
use crate::told;

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// List the items, oldest first
    List {
        #[command(flatten)]
        place: Where,
        /// Of this consumer only: phoenix, recorder, or a [[forward]]'s name
        #[arg(long)]
        consumer: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one item; with --body its spans, an encoded ExportTraceServiceRequest, as they came
    Show {
        #[command(flatten)]
        place: Where,
        /// As `list` prints it: CONSUMER/NAME
        item: String,
        /// Write the spans to standard output
        #[arg(long)]
        body: bool,
    },
    /// Have items tried once more
    Retry(Chosen),
    /// Give items up: their spans count as shed
    Drop(Chosen),
}

#[derive(Args)]
struct Chosen {
    #[command(flatten)]
    place: Where,
    /// As `list` prints them: CONSUMER/NAME
    #[arg(required_unless_present = "all", value_name = "ITEM")]
    items: Vec<String>,
    /// All items
    #[arg(long, conflicts_with = "items")]
    all: bool,
    /// With --all: of this consumer only
    #[arg(long, requires = "all")]
    consumer: Option<String>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let place = match &options.what {
        What::List { place, .. } | What::Show { place, .. } => place,
        What::Retry(chosen) | What::Drop(chosen) => &chosen.place,
    };
    let place = match Place::open(place) {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let quarantine = Quarantine::open(&place.quarantine_dir())?;
    match &options.what {
        What::List { consumer, json, .. } => list(&quarantine, consumer.as_deref(), *json),
        What::Show { item, body, .. } => show(&quarantine, item, *body),
        What::Retry(chosen) => decide(&quarantine, chosen, Decision::Retry),
        What::Drop(chosen) => decide(&quarantine, chosen, Decision::Drop),
    }
}

fn id(item: &Item) -> String {
    format!("{}/{}", item.consumer, item.name())
}

fn list(quarantine: &Quarantine, consumer: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let items = quarantine.list(consumer)?;
    if json {
        let told: Vec<_> = items
            .iter()
            .map(|item| {
                let mut told = json!(item);
                told["id"] = id(item).into();
                told
            })
            .collect();
        println!("{:#}", json!(told));
        return Ok(ExitCode::SUCCESS);
    }
    for item in &items {
        let answer: String = item.answer.chars().take(100).flat_map(char::escape_debug).collect();
        let (at, reason) = (told::moment(item.at_micros), &item.reason);
        let retried = if item.retries > 0 { format!(", tried again {} times", item.retries) } else { String::new() };
        println!("{}  {at}  {} spans  {reason}{retried}: {answer}", id(item), item.spans);
    }
    let spans: u64 = items.iter().map(|item| item.spans).sum();
    println!("{} items, {spans} spans", items.len());
    Ok(ExitCode::SUCCESS)
}

fn find(quarantine: &Quarantine, wanted: &str) -> anyhow::Result<Option<Item>> {
    let consumer = wanted.split_once('/').map(|(consumer, _)| consumer);
    Ok(quarantine.list(consumer)?.into_iter().find(|item| id(item) == wanted))
}

fn unknown(wanted: &str) -> ExitCode {
    eprintln!("no item {wanted:?} in quarantine: `emberd quarantine list` names them");
    ExitCode::FAILURE
}

fn show(quarantine: &Quarantine, wanted: &str, body: bool) -> anyhow::Result<ExitCode> {
    let Some(item) = find(quarantine, wanted)? else { return Ok(unknown(wanted)) };
    if body {
        std::io::stdout().write_all(&quarantine.body(&item)?)?;
    } else {
        println!("{:#}", json!(item));
    }
    Ok(ExitCode::SUCCESS)
}

fn decide(quarantine: &Quarantine, chosen: &Chosen, decision: Decision) -> anyhow::Result<ExitCode> {
    let mut items = Vec::new();
    if chosen.all {
        items = quarantine.list(chosen.consumer.as_deref())?;
    }
    for wanted in &chosen.items {
        match find(quarantine, wanted)? {
            Some(item) => items.push(item),
            None => return Ok(unknown(wanted)),
        }
    }
    for item in &items {
        quarantine.decide(item, decision)?;
        println!("{}", id(item));
    }
    let what = match decision {
        Decision::Retry => "will be tried again",
        Decision::Drop => "will be given up",
    };
    println!("{} items {what}: within seconds where emberd runs, else when it does", items.len());
    Ok(ExitCode::SUCCESS)
}
