//! `emberd erase --user X | --session X | --trace X`: what is known of somebody goes, from everywhere, with a receipt.
//!
//! Promise: nothing is taken away before every consumer has passed what the log held at the start, so that none brings it back; Phoenix and
//! files go before the rows by which the traces are found, and a receipt that is begun names the traces: so the command may be
//! interrupted, and is to be given again then. What it cannot take away is said, with how long it stays.
//! On disk: `DATA_DIR/receipts/erase-MICROS-SUBJECT.json`, made before anything goes and replaced when all is done.
//! Kept by: `tests/it/erasing.rs`.
//!
//! `seek`: which traces. `archived`: the archive's part. `receipt`: what was done, kept.

#[path = "erase/archived.rs"]
mod archived;
#[path = "erase/receipt.rs"]
mod receipt;
#[path = "erase/seek.rs"]
mod seek;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use emberd_consumers::quarantine::{Decision, Item, Quarantine};
use emberd_model::{Offset, TraceId, UnixNanos};
use emberd_phoenix::Client;
use emberd_store::Store;
use emberd_store::erase::Whom;

use super::Where;
use super::books::Place;
use crate::run_file::RunFile;
use crate::world::World;
use receipt::{Count, Receipt};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    subject: Subject,
    /// Only count what would go
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Write the user's or session's name into the receipt as it is, not its SHA-256
    #[arg(long)]
    plain: bool,
    /// How long to wait for consumers that are behind
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait: u64,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// A user, as spans name them (user.id), or a profile's id or email
    #[arg(long)]
    user: Option<String>,
    /// A session, as spans name it (session.id)
    #[arg(long)]
    session: Option<String>,
    /// A trace: 32 hex digits
    #[arg(long)]
    trace: Option<TraceId>,
}

impl Subject {
    fn kind(&self) -> &'static str {
        match self {
            Self { user: Some(_), .. } => "user",
            Self { session: Some(_), .. } => "session",
            _ => "trace",
        }
    }

    fn name(&self) -> String {
        let trace = || self.trace.map(|trace| trace.to_string());
        self.user.clone().or_else(|| self.session.clone()).or_else(trace).unwrap_or_default()
    }
}

/// How often consumers and the quarantine are looked at again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a running emberd may take to let quarantined spans go.
const QUARANTINE_PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let place = match Place::open(&options.place) {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let store = place.store().await?;
    let now = World::real().clock.now();
    let erasing = Erasing { options, place: &place, store: &store, now };
    let done = erasing.run().await;
    store.close().await;
    let receipt = done?;
    match options.json {
        true => println!("{:#}", receipt.as_json()),
        false => print!("{}", receipt.as_text()),
    }
    Ok(if receipt.nothing_is_left() || options.dry_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Erasing<'a> {
    options: &'a Options,
    place: &'a Place,
    store: &'a Store,
    now: UnixNanos,
}

impl Erasing<'_> {
    async fn run(&self) -> anyhow::Result<Receipt> {
        let subject = &self.options.subject;
        let mut whom = Whom::default();
        let hashes =
            |text: &str| self.place.config.redact.iter().filter_map(|rule| rule.hashed(text)).collect::<Vec<_>>();
        if let Some(user) = &subject.user {
            whom.users.insert(user.clone());
            for (id, email) in self.store.profiles_named_by(user).await? {
                whom.profiles.insert(id);
                whom.users.extend([id.to_string(), email]);
            }
        }
        whom.sessions.extend(subject.session.clone());
        for named in [&mut whom.users, &mut whom.sessions] {
            named.retain(|text| !text.is_empty());
            let hashed: Vec<String> = named.iter().flat_map(|text| hashes(text)).collect();
            named.extend(hashed);
        }
        self.consumers_pass().await?;

        let quarantine = Quarantine::open(&self.place.quarantine_dir())?;
        let mut traces = self.store.traces_naming(&whom).await?;
        traces.extend(subject.trace);
        traces.extend(receipt::unfinished(&self.place.config.data_dir, subject.kind(), &subject.name())?);
        traces.extend(seek::named_in_log(self.place, &whom)?);
        traces.extend(archived::traces_naming(self.place, &whom).await?);
        traces.extend(seek::named_in_quarantine(&quarantine, &whom)?);
        let log = seek::in_log(self.place, &traces)?;

        let mut receipt = Receipt::new(subject.kind(), &subject.name(), self.options.plain, self.now, &traces);
        receipt.keeps(&log, self.place.config.log.keep);
        receipt.stays(match self.store.kind() {
            "sqlite" => {
                "what earlier changes left in unused pages of the database file: until they are used again, or VACUUM"
                    .to_owned()
            }
            _ => {
                "dead rows in PostgreSQL's files: until it vacuums them, which it does by itself, or VACUUM".to_owned()
            }
        });
        receipt.before(self.counted(&whom, &traces, &quarantine).await?);
        if self.options.dry_run {
            receipt.is_dry();
            return Ok(receipt);
        }
        receipt.write(&self.place.config.data_dir)?;
        self.erase(&whom, &traces, &quarantine, &mut receipt).await?;
        receipt.after(self.counted(&whom, &traces, &quarantine).await?);
        receipt.done(World::real().clock.now());
        receipt.write(&self.place.config.data_dir)?;
        Ok(receipt)
    }

    /// Waits until every consumer has passed what the log holds now: whoever is behind would bring back what was taken away.
    async fn consumers_pass(&self) -> anyhow::Result<()> {
        let head = seek::head(self.place)?;
        let until = tokio::time::Instant::now() + Duration::from_secs(self.options.wait);
        let mut told = false;
        loop {
            let behind = self.behind(head).await?;
            if behind.is_empty() {
                return Ok(());
            }
            if self.options.dry_run {
                eprintln!("not all is read yet: {}", behind.join(", "));
                return Ok(());
            }
            if RunFile::api(&self.place.config.data_dir).is_none() {
                bail!(
                    "nothing was erased: {} and emberd does not run; start it, let it catch up, and try again",
                    behind.join(", ")
                );
            }
            if tokio::time::Instant::now() >= until {
                bail!(
                    "nothing was erased: {}; see `emberd status` for why, or wait longer with --wait",
                    behind.join(", ")
                );
            }
            if !told {
                eprintln!("waiting for consumers: {}", behind.join(", "));
                told = true;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn behind(&self, head: Offset) -> anyhow::Result<Vec<String>> {
        let books = self.place.books(self.store).await?;
        let mut cursors: Vec<(String, Offset)> =
            books.iter().map(|kept| (kept.name.clone(), kept.book.cursor())).collect();
        cursors.extend(seek::rules_cursor(self.place)?);
        let behind = cursors.into_iter().filter(|(_, at)| *at < head);
        Ok(behind.map(|(name, at)| format!("{name} has {} spans to go", head.since(at))).collect())
    }

    fn quarantined(quarantine: &Quarantine, traces: &BTreeSet<TraceId>) -> anyhow::Result<Vec<Item>> {
        let is_of = |item: &Item| item.traces.iter().any(|trace| trace.parse().is_ok_and(|id| traces.contains(&id)));
        Ok(quarantine.list(None)?.into_iter().filter(is_of).collect())
    }

    fn phoenix(&self) -> anyhow::Result<Option<Client>> {
        self.place.config.phoenix.otlp.as_ref().map(|_| self.place.config.phoenix.client()).transpose()
    }

    async fn counted(
        &self,
        whom: &Whom,
        traces: &BTreeSet<TraceId>,
        quarantine: &Quarantine,
    ) -> anyhow::Result<Vec<Count>> {
        let mut counts: Vec<Count> = self
            .store
            .erasable(whom, traces)
            .await?
            .into_iter()
            .map(|(place, rows)| (place.to_owned(), rows))
            .collect();
        counts.push(("quarantine".to_owned(), Self::quarantined(quarantine, traces)?.len() as u64));
        counts.push(("archive".to_owned(), archived::spans_of(self.place, traces).await?));
        if let Some(phoenix) = self.phoenix()? {
            let mut held = 0;
            for trace in traces {
                held += u64::from(phoenix.has_trace(*trace).await.context("Phoenix does not say what it holds")?);
            }
            counts.push(("phoenix traces".to_owned(), held));
        }
        Ok(counts)
    }

    async fn erase(
        &self,
        whom: &Whom,
        traces: &BTreeSet<TraceId>,
        quarantine: &Quarantine,
        receipt: &mut Receipt,
    ) -> anyhow::Result<()> {
        if let Some(phoenix) = self.phoenix()? {
            const FAILED: &str = "Phoenix did not delete; nothing else was erased yet, give the command again";
            for trace in traces {
                phoenix.delete_trace(*trace).await.context(FAILED)?;
            }
            for session in &whom.sessions {
                phoenix.delete_session(session).await.context(FAILED)?;
            }
        }
        archived::erase(self.place, traces).await.context("the archive did not let go; give the command again")?;
        self.let_go(quarantine, traces, receipt).await?;
        self.store.erase(whom, traces, self.now).await?;
        Ok(())
    }

    /// Quarantined spans are given up, which their consumer does, for the ledger moves with it.
    async fn let_go(
        &self,
        quarantine: &Quarantine,
        traces: &BTreeSet<TraceId>,
        receipt: &mut Receipt,
    ) -> anyhow::Result<()> {
        for item in Self::quarantined(quarantine, traces)? {
            quarantine.decide(&item, Decision::Drop)?;
        }
        let until = tokio::time::Instant::now() + QUARANTINE_PATIENCE;
        loop {
            let left = Self::quarantined(quarantine, traces)?.len();
            if left == 0 {
                return Ok(());
            }
            let runs = RunFile::api(&self.place.config.data_dir).is_some();
            if !runs || tokio::time::Instant::now() >= until {
                receipt.stays(format!("{left} quarantined items are given up, and go when emberd runs"));
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
