//! `emberd reconcile [--fix]`: holds what emberd has written against what it was made of, and against Phoenix; heals what differs.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::Where;
use super::bars::bar;
use super::books::Place;
use crate::reconcile::{Found, Part, Reconcile};
use crate::world::World;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// What was received since: so long ago, such as 24h or 7d
    #[arg(long, value_name = "AGO", default_value = "24h", value_parser = ago)]
    since: Duration,
    /// And before then: what came later may still be on its way
    #[arg(long, value_name = "AGO", default_value = "2m", value_parser = ago)]
    until: Duration,
    /// Heal what differs; without it, it is only told
    #[arg(long)]
    fix: bool,
    /// These parts alone
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

fn ago(text: &str) -> Result<Duration, String> {
    crate::config::duration(text)
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let place = match Place::open(&options.place) {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let store = place.store().await?;
    let world = World::real();
    let parts = if options.only.is_empty() { Part::value_variants().to_vec() } else { options.only.clone() };
    let reconcile = Reconcile {
        config: &place.config,
        world: &world,
        store: &store,
        log: place.log_dir(),
        since: options.since,
        until: options.until,
        fix: options.fix,
    };
    let (mut told, mut is_well) = (serde_json::Map::new(), true);
    for part in parts {
        let bar = bar("{spinner} {msg}: {pos} compared", part.name(), options.json);
        let found = reconcile.part(part, &|done| bar.set_position(done)).await;
        bar.finish_and_clear();
        match found {
            Ok(found) => {
                is_well &= found.is_well();
                if !options.json {
                    println!("{}", line(part, &found, options.fix));
                }
                told.insert(part.name().to_owned(), json!(found));
            }
            Err(error) => {
                is_well = false;
                if !options.json {
                    println!("{:<12} cannot be compared: {error:#}", part.name());
                }
                told.insert(part.name().to_owned(), json!({ "error": format!("{error:#}") }));
            }
        }
    }
    store.close().await;
    if options.json {
        println!("{:#}", Value::Object(told));
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(part: Part, found: &Found, fix: bool) -> String {
    let Found { compared, different, missing, healed, skipped, .. } = found;
    let mut line = format!("{:<12} {compared} compared: {different} differ, {missing} missing", part.name());
    if different + missing > 0 {
        line += &match (fix, different + missing - healed.min(&(different + missing))) {
            (true, 0) => ", all healed".to_owned(),
            (true, left) => format!(", {healed} healed, {left} left"),
            (false, _) => "; --fix heals".to_owned(),
        };
    }
    if *skipped > 0 {
        line += &format!(" ({skipped} still moving, left for the next time)");
    }
    for example in &found.examples {
        line += &format!("\n  {example}");
    }
    line
}
