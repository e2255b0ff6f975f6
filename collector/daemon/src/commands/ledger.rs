//! `emberd ledger`: what became of every span; with `--check`, whether all sums are right.
//!
//! The check believes nobody: it reads each consumer's book where it is kept (journals, the database), counts in the log's own bytes what
//! each has not passed yet, and holds both against each other. A book is off when its lines are not as many spans as its cursor has
//! passed; two books are off when they, with what waits, tell different sums of an hour and project that both know whole.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use emberd_intake::turned_away::What;
use emberd_log::inspect;
use emberd_model::ledger::{Account, Book, EARLIER, Fate, Hour, OTHER_PROJECTS, Runs, Tally, UNKNOWN_PROJECT};
use emberd_model::{Batch, Offset};
use serde_json::{Value, json};

use super::Where;
use super::books::{Kept, Place, bar};
use crate::told;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// Prove the sums from the log's own bytes; exit 1 when one is off. May read the whole backlog
    #[arg(long)]
    check: bool,
    /// Lines by hour and project, not totals alone
    #[arg(long)]
    all: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Beside a daemon that runs, a segment may be used again while it is read: then the check begins anew.
const TRIES: usize = 3;

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let place = match Place::open(&options.place) {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let store = place.store().await?;
    let mut tries = 0;
    let seen = loop {
        tries += 1;
        let seen = Seen::take(&place, place.books(&store).await?)?;
        if seen.gaps.is_empty() || tries == TRIES {
            break seen;
        }
    };
    store.close().await;
    let faults = if options.check { seen.faults() } else { Vec::new() };
    if options.json {
        let mut told = seen.json(options.all);
        if options.check {
            told["faults"] = json!(faults);
        }
        println!("{told:#}");
    } else {
        print!("{}", seen.text(options.all));
        faults.iter().for_each(|fault| println!("OFF: {fault}"));
        if options.check && faults.is_empty() {
            println!("every sum is right");
        }
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything at one moment.
struct Seen {
    turned_away: BTreeMap<emberd_intake::turned_away::Line, u64>,
    consumers: Vec<Consumer>,
    head: Offset,
    /// Spans behind some cursor that the log cannot give.
    gaps: Vec<(Offset, Offset)>,
}

struct Consumer {
    kept: Kept,
    /// The book as it will be once all that waits is passed, whatever becomes of it.
    whole: Book,
    pending: u64,
}

impl Seen {
    fn take(place: &Place, kept: Vec<Kept>) -> anyhow::Result<Self> {
        let turned_away = place.turned_away()?;
        let mut consumers: Vec<Consumer> =
            kept.into_iter().map(|kept| Consumer { whole: kept.book.clone(), kept, pending: 0 }).collect();
        let from = consumers.iter().map(|consumer| consumer.kept.book.cursor()).min();
        let (segments, _) = inspect::segments(&*place.disk, &place.log_dir())?;
        let progress = bar(segments.len() as u64, "counting what waits");
        let from = from.unwrap_or_default();
        let read = inspect::batches(
            &*place.disk,
            &place.log_dir(),
            from,
            |_, batch| consumers.iter_mut().for_each(|consumer| consumer.waits(&batch)),
            |_| {
                progress.inc(1);
                true
            },
        )?;
        progress.finish_and_clear();
        let mut gaps = read.damaged;
        if let Some(tail) = read.tail.filter(|tail| *tail > from) {
            gaps.insert(0, (from, tail));
        }
        let cursors = consumers.iter().map(|consumer| consumer.kept.book.cursor());
        let head = cursors.chain([read.end]).max().unwrap_or_default();
        Ok(Self { turned_away, consumers, head, gaps })
    }

    fn total(&self, what: What) -> u64 {
        self.turned_away.iter().filter(|(line, _)| line.what == what).map(|(_, spans)| spans).sum()
    }

    /// What is off.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for Consumer { kept: Kept { name, book, .. }, pending, .. } in &self.consumers {
            if !book.is_balanced() {
                let passed = book.cursor().signed() - book.origin();
                faults.push(format!("{name}: {passed} spans passed, {} booked", book.spans()));
            }
            let waits = self.head.since(book.cursor());
            let missing: u64 = self.gaps.iter().map(|(from, to)| to.since((*from).max(book.cursor()))).sum();
            if *pending + missing != waits {
                faults
                    .push(format!("{name}: {waits} spans wait, {pending} are in the log and {missing} cannot be read"));
            }
        }
        for (from, to) in &self.gaps {
            faults.push(format!("the log: spans {from} to {to} wait for a consumer and cannot be read"));
        }
        if let Some((first, others)) = self.consumers.split_first() {
            others.iter().for_each(|other| first.differs(other, &mut faults));
        }
        faults
    }

    fn json(&self, all: bool) -> Value {
        let (rejected, refused) = (self.total(What::Rejected), self.total(What::Refused));
        let consumers: serde_json::Map<String, Value> = self
            .consumers
            .iter()
            .map(|consumer| {
                let book = &consumer.kept.book;
                let mut told =
                    json!({ "origin": book.origin(), "pending": consumer.pending, "cursor": book.cursor().0 });
                for word in WORDS {
                    told[word] = book.total(word).into();
                }
                for word in ["quarantined", "shed", "lost"] {
                    told["reasons"][word] = json!(book.reasons(word));
                }
                if all {
                    told["lines"] = told::book(book)["lines"].clone();
                }
                (consumer.kept.name.clone(), told)
            })
            .collect();
        let mut told = json!({
            "received_spans": self.head.0 + rejected + refused,
            "accepted_spans": self.head.0,
            "rejected_spans": rejected,
            "refused_spans": refused,
            "consumers": consumers,
        });
        if all {
            told["turned_away"] =
                self.turned_away.iter().map(|(line, spans)| told::turned_away(line, *spans)).collect();
        }
        told
    }

    fn text(&self, all: bool) -> String {
        let (rejected, refused) = (self.total(What::Rejected), self.total(What::Refused));
        let mut page = format!(
            "{} received = {} accepted + {rejected} rejected + {refused} refused\n",
            self.head.0 + rejected + refused,
            self.head.0
        );
        for (line, spans) in self.turned_away.iter().filter(|_| all) {
            let what = if line.what == What::Rejected { "rejected" } else { "refused" };
            page += &format!("  {}  {:<14} {what} {} {spans}\n", told::hour(line.hour), line.transport, line.reason);
        }
        for Consumer { kept: Kept { name, book, .. }, pending, .. } in &self.consumers {
            let since = if book.origin() == 0 { String::new() } else { format!(" since span {}", book.origin()) };
            page += &format!("{name}: {} accepted{since} =", self.head.signed() - book.origin());
            let parts = WORDS.map(|word| (word, book.total(word))).into_iter().chain([("pending", *pending)]);
            let parts: Vec<String> = parts
                .filter(|(word, spans)| *spans > 0 || matches!(*word, "done" | "pending"))
                .map(|(word, spans)| format!(" {spans} {word}{}", reasons(book, word)))
                .collect();
            page += &parts.join(" +");
            page.push('\n');
            if all {
                for (account, fate, spans) in book.lines() {
                    let (word, reason) = fate.words();
                    let project = account.project.escape_debug();
                    page += &format!("  {}  {project:<20} {spans:>9} {word} {reason}\n", told::hour(account.hour));
                }
            }
        }
        page
    }
}

/// What can become of a span.
const WORDS: [&str; 5] = ["done", "duplicate", "quarantined", "shed", "lost"];

fn reasons(book: &Book, word: &str) -> String {
    let reasons = book.reasons(word);
    let told: Vec<String> = reasons
        .iter()
        .filter(|(reason, _)| !reason.is_empty())
        .map(|(reason, spans)| format!("{reason} {spans}"))
        .collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

impl Consumer {
    /// A batch of the log that this one may not have passed.
    fn waits(&mut self, batch: &Batch) {
        let cursor = self.kept.book.cursor();
        if batch.end() <= cursor {
            return;
        }
        // A cursor inside a batch cannot be, but were it so, the first spans are passed.
        let passed = cursor.since(batch.offset).min(u64::from(batch.spans));
        let runs = Runs::of(batch).slice(passed..u64::from(batch.spans));
        self.pending += runs.spans();
        let tally: Tally = runs.tally(&Fate::Done);
        self.whole.book(batch.end(), &tally);
    }

    /// Whether two consumers tell different sums of what both know whole: hours that neither has folded, and that both began before.
    fn differs(&self, other: &Self, faults: &mut Vec<String>) {
        let is_comparable = |consumer: &Self| consumer.kept.book.total("lost") == 0;
        if self.kept.book.origin() != other.kept.book.origin() || !is_comparable(self) || !is_comparable(other) {
            return;
        }
        let from = self.whole.horizon().max(other.whole.horizon()).max(Hour(1));
        let (ours, theirs) = (by_account(&self.whole, from), by_account(&other.whole, from));
        let accounts: std::collections::BTreeSet<&Account> = ours.keys().chain(theirs.keys()).collect();
        for account in accounts {
            let (ours, theirs) = (ours.get(account).copied().unwrap_or(0), theirs.get(account).copied().unwrap_or(0));
            if ours != theirs {
                faults.push(format!(
                    "project {:?} at {}: {} knows of {ours} spans, {} of {theirs}",
                    account.project,
                    told::hour(account.hour),
                    self.kept.name,
                    other.kept.name
                ));
            }
        }
    }
}

/// The sums of a book's accounts; hours in which some projects are booked together are one.
fn by_account(book: &Book, from: Hour) -> BTreeMap<Account, i64> {
    let accounts = book.accounts(from);
    let crowded: Vec<Hour> = accounts
        .keys()
        .filter(|account| matches!(&*account.project, OTHER_PROJECTS | UNKNOWN_PROJECT) || account.hour == EARLIER)
        .map(|account| account.hour)
        .collect();
    let mut sums = BTreeMap::new();
    for (account, spans) in accounts {
        let account = if crowded.contains(&account.hour) { Account::new(account.hour, "all") } else { account };
        *sums.entry(account).or_default() += spans;
    }
    sums
}
