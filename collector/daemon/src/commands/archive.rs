//! `emberd archive list | verify | compact`: what is archived, whether it is whole, and larger files now.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use emberd_archive::Day;
use emberd_archive::keeping::{self, Archive, Catalogue, Place as Kept};
use emberd_consumers::archiver::orders::{self, Order, Orders};
use serde_json::{Value, json};

use super::Where;
use super::bars::bar;
use super::books::Place;
use crate::wiring::known_log_name;
use crate::world::World;

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// List what is archived, by day; with --files every file, as the manifest has them
    List {
        #[command(flatten)]
        place: Where,
        /// Every file: what to read for exactness, while files are being merged
        #[arg(long)]
        files: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check that every file is there and is what was written, and that nothing else lies there
    Verify {
        #[command(flatten)]
        place: Where,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make larger files of small ones now, today's among them
    Compact {
        #[command(flatten)]
        place: Where,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let (What::List { place, .. } | What::Verify { place, .. } | What::Compact { place, .. }) = &options.what;
    let place = match Place::open(place) {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    match &options.what {
        What::List { files, json, .. } => list(&place, *files, *json).await,
        What::Verify { json, .. } => verify(&place, *json).await,
        What::Compact { json, .. } => compact(&place, *json).await,
    }
}

async fn list(place: &Place, files: bool, json: bool) -> anyhow::Result<ExitCode> {
    let kept = place.archive()?;
    let catalogue = Catalogue::read(&*kept).await.context("cannot read the archive's manifest")?;
    let mut days: BTreeMap<Day, (u64, u64, u64)> = BTreeMap::new();
    let mut all = Vec::new();
    for keeping::Kept { file, name } in catalogue.files() {
        let day = days.entry(name.day).or_default();
        *day = (day.0 + 1, day.1 + file.rows, day.2 + file.bytes);
        all.push(json!({ "name": file.name, "spans": file.rows, "bytes": file.bytes }));
    }
    let told: Vec<Value> = days
        .iter()
        .map(
            |(day, (files, spans, bytes))| json!({ "day": text(*day), "files": files, "spans": spans, "bytes": bytes }),
        )
        .collect();
    if json {
        println!("{:#}", if files { json!({ "days": told, "files": all }) } else { json!({ "days": told }) });
        return Ok(ExitCode::SUCCESS);
    }
    if files {
        all.iter().for_each(|file| println!("{} {} {}", word(&file["name"]), file["spans"], file["bytes"]));
        return Ok(ExitCode::SUCCESS);
    }
    if days.is_empty() {
        println!("nothing is archived yet");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<12} {:>7} {:>12} {:>16} {:>12}", "day", "files", "spans", "bytes", "bytes/span");
    for (day, (files, spans, bytes)) in &days {
        println!(
            "{:<12} {files:>7} {spans:>12} {bytes:>16} {:>12.1}",
            text(*day),
            *bytes as f64 / (*spans).max(1) as f64
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(place: &Place, json: bool) -> anyhow::Result<ExitCode> {
    let kept = place.archive()?;
    let bar = bar("{msg} [{bar:30}] {pos}/{len} files, {eta} left", "checking the archive", json);
    let told = |done: usize, of: usize| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    let report = keeping::verify(&*kept, told).await.context("cannot read the archive")?;
    bar.finish_and_clear();
    if json {
        let troubles: Vec<Value> = report
            .troubles
            .iter()
            .map(|(name, trouble)| json!({ "name": name, "trouble": trouble.to_string() }))
            .collect();
        println!(
            "{:#}",
            json!({ "files": report.files, "right": report.files_right, "spans": report.rows, "bytes": report.bytes, "troubles": troubles })
        );
    } else {
        println!(
            "{} of {} files are as they were written: {} spans, {} bytes",
            report.files_right, report.files, report.rows, report.bytes
        );
        report.troubles.iter().for_each(|(name, trouble)| println!("{name}: {trouble}"));
    }
    Ok(if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn compact(place: &Place, json: bool) -> anyhow::Result<ExitCode> {
    let done = ordered(place, &Order::Compact, |_| ()).await?;
    if json {
        println!("{done:#}");
    } else {
        println!("{} files became {}", done["files_before"], done["files_after"]);
    }
    Ok(ExitCode::SUCCESS)
}

/// How often an answer is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Has an order carried out: by the running emberd, for it writes the archive; else here. `waits` hears of each look at it.
pub(super) async fn ordered(place: &Place, order: &Order, mut waits: impl FnMut(Duration)) -> anyhow::Result<Value> {
    let world = World::real();
    let answer = match place.alone()? {
        Some(_lock) => {
            let log = known_log_name(&place.log_dir())?;
            let mut archive = Archive::open(place.archive()?, log.as_str()).await.context("cannot open the archive")?;
            orders::obey(order, &mut archive, Day::of(world.clock.now())).await.context("the archive did not do it")?
        }
        None => {
            let orders = Orders::in_dir(&place.config.data_dir.join("orders"));
            let name = uuid::Uuid::new_v4().simple().to_string();
            orders.give(&name, order).context("cannot give the running emberd an order")?;
            let since = tokio::time::Instant::now();
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    _ = tokio::signal::ctrl_c() => {
                        orders.take_back(&name);
                        bail!("interrupted; what the running emberd has begun it ends");
                    }
                }
                if let Some(answer) = orders.answer(&name)? {
                    break answer;
                }
                waits(since.elapsed());
            }
        }
    };
    match answer.get("error") {
        Some(error) => bail!("the archive did not do it: {}", word(error)),
        None => Ok(answer),
    }
}

impl Place {
    /// Where spans are archived.
    pub(super) fn archive(&self) -> anyhow::Result<Arc<dyn Kept>> {
        self.config.archive.place(&self.config.data_dir)
    }

    /// The log's lock, if no emberd runs here: while it is held, none starts.
    pub(super) fn alone(&self) -> anyhow::Result<Option<emberd_log::disk::Lock>> {
        let path = self.log_dir().join(emberd_log::LOCK_NAME);
        self.disk.lock(&path).with_context(|| format!("cannot lock {}", path.display()))
    }
}

fn text(day: Day) -> String {
    keeping::name::day_text(day).unwrap_or_else(|| "after 9999".to_owned())
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
