//! `emberd replay`: sends on again what was accepted: to Phoenix, into the tables, through a rule, or to another endpoint.

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use emberd_log::Entry;
use emberd_model::{Batch, Offset, TraceId, UnixNanos, row};
use emberd_store::Store;
use indicatif::ProgressBar;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use super::Where;
use super::bars::bar;
use super::books::Place;
use crate::replay::plan::{From, Into, Marks, Plan};
use crate::replay::source::{Places, Source, Wanted};
use crate::replay::{Ended, Reached, Replay};
use crate::told;
use crate::wiring::known_log_name;
use crate::world::World;

/// Spans a second, unless someone says otherwise: what leaves a daemon beside it room to work.
const RATE: u64 = 2_000;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// Spans received from then on: RFC 3339 such as 2026-11-26T08:00:00Z, or so long ago, such as 2h
    #[arg(long, value_name = "WHEN")]
    from: String,
    /// And before then [default: now]
    #[arg(long, value_name = "WHEN", default_value = "0s")]
    to: String,
    /// Whole traces of this prompt alone: its id or its title
    #[arg(long)]
    prompt: Option<String>,
    /// Where to: phoenix, recorder, rule NAME, or otlp URL
    #[arg(long, num_args = 1..=2, value_names = ["WHERE", "WHAT"], required = true)]
    into: Vec<String>,
    /// Where spans are taken from
    #[arg(long, value_enum, default_value = "both")]
    source: From,
    /// Spans a second at most; 0: as fast as it goes
    #[arg(long, value_name = "SPANS", default_value_t = RATE)]
    rate: u64,
    /// Count what would be replayed, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let (into, world) = (into(&options.into)?, World::real());
    // From the archive alone a new data directory may be filled.
    let opened = if options.source == From::Archive { Place::new(&options.place) } else { Place::open(&options.place) };
    let place = match opened {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let now = world.clock.now();
    let times = (moment(&options.from, now).context("--from")?, moment(&options.to, now).context("--to")?);
    if times.0 >= times.1 {
        bail!("--from is not before --to: nothing was received in no time");
    }
    let store = place.store().await?;
    if let Into::Rule(name) = &into
        && !store.rules().await?.iter().any(|rule| rule.name == *name)
    {
        bail!("there is no rule named {name:?}: see GET /api/rules");
    }
    let words = format!("{into:?} {} {} {:?} {:?}", options.from, options.to, options.prompt, options.source);
    let mut plan = Plan::new(&words, into, options.source, times);
    (plan.prompt, plan.rate) = (options.prompt.clone(), options.rate);
    let code = if options.dry_run {
        count(&place, &store, &plan, options.json).await
    } else {
        replay(&place, &store, plan, &world, options.json).await
    };
    store.close().await;
    code
}

async fn replay(place: &Place, store: &Store, plan: Plan, world: &World, json: bool) -> anyhow::Result<ExitCode> {
    let replay = Replay::open(&place.config.data_dir, plan, world)?;
    let dir = replay.dir().to_owned();
    let plan = replay.plan().clone();
    if !json {
        let begun = if replay.is_resumed() { "going on with" } else { "beginning" };
        let (from, to) = (told::moment(plan.from().micros()), told::moment(plan.to().micros()));
        eprintln!("{begun} the replay of what was received from {from} to {to}; its state is in {}", dir.display());
    }
    let wanted = wanted(place, store, &plan).await?;
    let stop = CancellationToken::new();
    let bar = bar("{spinner} {pos} spans sent, {msg} ({per_sec}, {elapsed})", "", json);
    let watch = |reached: Reached, trouble: Option<&str>| tell(&bar, reached, trouble);
    let open = |marks: Marks, head: Offset| {
        Ok(Source::open(places(place, &plan)?, wanted, marks.position, head.since(marks.head)))
    };
    let running = replay.run(&place.config, world, store, open, &stop, watch);
    let mut running = std::pin::pin!(running);
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended?,
            _ = tokio::signal::ctrl_c(), if !stop.is_cancelled() => stop.cancel(),
        }
    };
    bar.finish_and_clear();
    if ended.is_whole && ended.aside == 0 {
        Replay::forget(&dir)?;
    }
    report(&ended, &dir, json);
    Ok(if ended.is_whole && ended.aside == 0 && ended.missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(ended: &Ended, dir: &std::path::Path, json: bool) {
    let Ended { reached: Reached { fed, .. }, is_whole, missing, aside } = ended;
    if json {
        println!("{:#}", json!({ "spans": fed, "whole": is_whole, "missing": missing, "quarantined": aside }));
        return;
    }
    if !is_whole {
        println!("interrupted after {fed} spans: the same command goes on from there");
        return;
    }
    println!("replayed {fed} spans");
    if *missing > 0 {
        println!("{missing} spans could not be read: gone from the log by now, or damaged (see `emberd log verify`)");
    }
    if *aside > 0 {
        println!(
            "{aside} spans were refused at the far end; they lie, with the answers, in {}",
            dir.join("quarantine").display()
        );
    }
}

/// What would be replayed.
async fn count(place: &Place, store: &Store, plan: &Plan, json: bool) -> anyhow::Result<ExitCode> {
    let mut source = Source::open(places(place, plan)?, wanted(place, store, plan).await?, None, 0);
    let (mut spans, mut bytes, mut batches) = (0_u64, 0_u64, 0_u64);
    while let Some(fed) = source.next().await? {
        spans += u64::from(fed.entry.spans.get());
        bytes += fed.entry.body.len() as u64;
        batches += 1;
    }
    if json {
        println!("{:#}", json!({ "spans": spans, "bytes": bytes, "batches": batches, "missing": source.missing() }));
    } else {
        println!("{spans} spans in {batches} batches, {bytes} bytes, would be replayed");
    }
    Ok(ExitCode::SUCCESS)
}

/// What the plan wants of its source.
async fn wanted(place: &Place, store: &Store, plan: &Plan) -> anyhow::Result<Wanted> {
    let mut wanted = Wanted { from: plan.from(), to: plan.to(), traces: None };
    if let Some(prompt) = &plan.prompt {
        let names = names(store, prompt).await?;
        wanted.traces = Some(Arc::new(traces(place, plan, &wanted, names).await?));
    }
    Ok(wanted)
}

/// The words by which spans may name a prompt: as it was given, and what its row says.
async fn names(store: &Store, prompt: &str) -> anyhow::Result<HashSet<String>> {
    let mut names = HashSet::from([prompt.to_owned()]);
    let mut cursor = None;
    loop {
        let page = store.prompts(cursor.as_deref(), 500).await?;
        for row in &page.data {
            let (id, title) = (row.id.to_string(), row.title.clone());
            if id == prompt || title == prompt {
                names.extend([id, title]);
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(names);
        }
    }
}

/// The traces that name a prompt so.
async fn traces(
    place: &Place,
    plan: &Plan,
    wanted: &Wanted,
    names: HashSet<String>,
) -> anyhow::Result<HashSet<TraceId>> {
    let reading = place.config.recorder.reading();
    let mut source = Source::open(places(place, plan)?, wanted.clone(), None, 0);
    let mut traces = HashSet::new();
    while let Some(fed) = source.next().await? {
        let Entry { spans, received_at, key, flags, body } = fed.entry;
        let batch = Batch { offset: Offset(0), spans: spans.get(), received_at, key, flags, body };
        traces.extend(row::traces_that_name([&batch], &reading, |name| names.contains(name)));
    }
    Ok(traces)
}

fn places(place: &Place, plan: &Plan) -> anyhow::Result<Places> {
    let log = (plan.source != From::Archive).then(|| place.log_dir());
    let reads_archive = match plan.source {
        From::Log => false,
        From::Archive => true,
        From::Both => place.config.archive.enabled,
    };
    let own = known_log_name(&place.log_dir()).map(|name| name.as_str().to_owned());
    let archive = reads_archive.then(|| Ok::<_, anyhow::Error>((place.archive()?, own.unwrap_or_default())));
    Ok(Places { disk: place.disk.clone(), log, archive: archive.transpose()? })
}

fn into(words: &[String]) -> anyhow::Result<Into> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match words[..] {
        ["phoenix"] => Into::Phoenix,
        ["recorder"] => Into::Recorder,
        ["rule", name] => Into::Rule(name.to_owned()),
        ["otlp", url] => {
            crate::config::endpoint(url).map_err(|why| anyhow::anyhow!("--into otlp {url}: {why}"))?;
            Into::Otlp(url.to_owned())
        }
        _ => bail!("--into {}: expected phoenix, recorder, rule NAME, or otlp URL", words.join(" ")),
    })
}

/// A moment in RFC 3339, or so long before `now`.
fn moment(text: &str, now: UnixNanos) -> anyhow::Result<UnixNanos> {
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(UnixNanos(u64::try_from(moment.unix_timestamp_nanos()).context("before 1970")?));
    }
    let ago: Duration = crate::config::duration(text).map_err(|why| {
        anyhow::anyhow!("{text:?} is neither a moment such as 2026-11-26T08:00:00Z nor so long ago: {why}")
    })?;
    Ok(UnixNanos(now.0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))))
}

fn tell(bar: &ProgressBar, reached: Reached, trouble: Option<&str>) {
    bar.set_position(reached.fed);
    let done = format!("{} of them arrived", reached.done);
    bar.set_message(trouble.map_or(done.clone(), |trouble| format!("{done}; trying again: {trouble}")));
    bar.tick();
}
