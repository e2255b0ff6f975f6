//! How far a consumer is, for the ledger, the status page and the metrics.
//!
//! Promise: at every moment `head = origin + done + duplicate + quarantined + shed + lost + pending`, in spans; all of it follows from
//! the head and from the book, which moves with the durable cursor and is shown as it is stored.
//! Not here: where cursor and book are stored ([`crate::book`], the recorder's database); what is in quarantine ([`crate::quarantine`]).
//! Kept by: `tests::the_sums_always_meet_the_head`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use emberd_model::Offset;
use emberd_model::ledger::{Book, Tally};
use serde_json::{Map, Value, json};

/// What the metrics of consumers are, for Prometheus; written once, before those of all consumers.
pub const METRIC_HEADS: &str = "\
# TYPE emberd_consumer_done_spans gauge
# TYPE emberd_consumer_duplicate_spans gauge
# TYPE emberd_consumer_pending_spans gauge
# TYPE emberd_consumer_quarantined_spans gauge
# TYPE emberd_consumer_shed_spans gauge
# TYPE emberd_consumer_lost_spans gauge
# TYPE emberd_ledger_aside_spans gauge
# TYPE emberd_consumer_failing gauge
# TYPE emberd_consumer_sent_spans gauge
# TYPE emberd_consumer_resent_spans gauge
# TYPE emberd_consumer_mended_spans gauge
# TYPE emberd_consumer_failures_total counter
";

/// One consumer's progress, written by it, read by anyone.
#[derive(Debug)]
pub struct Progress {
    name: String,
    /// What became of the spans behind the durable cursor, as it is stored.
    book: Mutex<Book>,
    sent: Option<AtomicU64>,
    /// Whether a span is done only once it was seen at the far end.
    verifies: bool,
    resent: AtomicU64,
    mended: AtomicU64,
    unpublished: AtomicBool,
    trouble: Mutex<Trouble>,
}

/// What went wrong, and whether it still does.
#[derive(Debug, Default)]
struct Trouble {
    failures: BTreeMap<&'static str, u64>,
    last_error: Option<String>,
    is_failing: bool,
}

impl Progress {
    /// Of a consumer that is done with a span when its cursor has passed it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            book: Mutex::default(),
            sent: None,
            verifies: false,
            resent: AtomicU64::new(0),
            mended: AtomicU64::new(0),
            unpublished: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// Of a forwarder: a span is sent before it is done; if it `verifies`, it is done once it was read back.
    #[must_use]
    pub fn forwarding(name: &str, verifies: bool) -> Self {
        Self { sent: Some(AtomicU64::new(0)), verifies, ..Self::new(name) }
    }

    /// The consumer's name in the ledger.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the durable cursor stands.
    #[must_use]
    pub fn cursor(&self) -> Offset {
        self.locked().cursor()
    }

    /// The book, as it is stored.
    #[must_use]
    pub fn book(&self) -> Book {
        self.locked().clone()
    }

    /// Cursor and book are stored so.
    pub fn stored(&self, book: Book) {
        if let Some(sent) = &self.sent {
            sent.fetch_max(book.cursor().0, Relaxed);
        }
        *self.locked() = book;
    }

    /// The durable cursor has moved, and what became of the spans that it passed is booked with it.
    pub fn passed(&self, cursor: Offset, tally: &Tally) {
        self.locked().book(cursor, tally);
        if let Some(sent) = &self.sent {
            sent.fetch_max(cursor.0, Relaxed);
        }
    }

    /// How far the far end has acknowledged, if there is one.
    #[must_use]
    pub fn sent_to(&self) -> Offset {
        Offset(self.sent.as_ref().map_or(0, |sent| sent.load(Relaxed)))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The far end said that it has everything below this.
    pub fn sent(&self, to: Offset) {
        if let Some(sent) = &self.sent {
            sent.store(to.0, Relaxed);
        }
    }

    /// Spans went out once more.
    pub fn resent(&self, spans: u64) {
        self.resent.fetch_add(spans, Relaxed);
    }

    /// Spans were changed in a copy before they went out.
    pub fn mended(&self, spans: u64) {
        self.mended.fetch_add(spans, Relaxed);
    }

    /// Whether readers do not see yet all that the cursor has passed.
    pub fn unpublished(&self, is: bool) {
        self.unpublished.store(is, Relaxed);
    }

    /// Something failed; `class` is one of a few words for the metrics, `error` is for people.
    pub fn failed(&self, class: &'static str, error: &dyn std::fmt::Display) {
        let mut trouble = self.trouble();
        *trouble.failures.entry(class).or_default() += 1;
        trouble.last_error = Some(error.to_string());
        trouble.is_failing = true;
    }

    /// It works (again).
    pub fn succeeded(&self) {
        let mut trouble = self.trouble();
        trouble.is_failing = false;
    }

    /// Whether the last try failed, and with what.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        let trouble = self.trouble();
        trouble.is_failing.then(|| trouble.last_error.clone().unwrap_or_default())
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Its part of the ledger, of a log whose head is `head`.
    #[must_use]
    pub fn ledger(&self, head: Offset) -> Value {
        let book = self.book();
        let mut ledger = Map::new();
        if let Some(sent) = &self.sent {
            let aside = book.total("quarantined") + book.total("shed") + book.total("lost");
            let sent = i64::try_from(sent.load(Relaxed)).unwrap_or(i64::MAX) - book.origin();
            ledger.insert("sent".into(), u64::try_from(sent).unwrap_or(0).saturating_sub(aside).into());
            if self.verifies {
                ledger.insert("verified".into(), (book.total("done") + book.total("duplicate")).into());
            }
            ledger.insert("resent".into(), self.resent.load(Relaxed).into());
            ledger.insert("mended".into(), self.mended.load(Relaxed).into());
        }
        for word in WORDS {
            ledger.insert(word.into(), book.total(word).into());
        }
        ledger.insert("pending".into(), head.since(book.cursor()).into());
        ledger.insert("origin".into(), book.origin().into());
        let reasons = ["quarantined", "shed", "lost"].map(|word| (word.to_owned(), json!(book.reasons(word))));
        ledger.insert("reasons".into(), Value::Object(reasons.into_iter().collect()));
        if self.unpublished.load(Relaxed) {
            ledger.insert("unpublished".into(), true.into());
        }
        let trouble = self.trouble();
        ledger.insert("failures".into(), json!(trouble.failures));
        ledger.insert("failing".into(), trouble.is_failing.into());
        ledger.insert("last_error".into(), json!(trouble.last_error));
        Value::Object(ledger)
    }

    /// Appends its metrics in Prometheus' text format; the caller writes the heads.
    pub fn metrics(&self, head: Offset, out: &mut String) {
        let name = &self.name;
        let book = self.book();
        let mut line = |metric: &str, value: u64| {
            let _ = writeln!(out, "emberd_consumer_{metric}{{consumer=\"{name}\"}} {value}");
        };
        for word in WORDS {
            line(&format!("{word}_spans"), book.total(word));
        }
        line("pending_spans", head.since(book.cursor()));
        line("failing", u64::from(self.failing().is_some()));
        if let Some(sent) = &self.sent {
            line("sent_spans", sent.load(Relaxed));
            line("resent_spans", self.resent.load(Relaxed));
            line("mended_spans", self.mended.load(Relaxed));
        }
        for word in ["quarantined", "shed", "lost"] {
            for (reason, spans) in book.reasons(word) {
                let labels = format!("consumer=\"{name}\",fate=\"{word}\",reason=\"{reason}\"");
                let _ = writeln!(out, "emberd_ledger_aside_spans{{{labels}}} {spans}");
            }
        }
        for (class, count) in &self.trouble().failures {
            let _ = writeln!(out, "emberd_consumer_failures_total{{consumer=\"{name}\",class=\"{class}\"}} {count}");
        }
    }
}

/// What can become of a span.
const WORDS: [&str; 5] = ["done", "duplicate", "quarantined", "shed", "lost"];

#[cfg(test)]
mod tests {
    use emberd_model::ledger::{Account, Fate, Hour, Reason};

    use super::*;

    /// Whatever becomes of its spans, the parts add up to the head.
    #[test]
    fn the_sums_always_meet_the_head() {
        let progress = Progress::forwarding("phoenix", true);
        progress.stored(Book::begin(Offset(10)));
        let head = Offset(110);
        let booked = |fates: &[(Fate, i64)]| {
            let mut tally = Tally::default();
            let account = Account::new(Hour(490_000), "shop");
            fates.iter().for_each(|(fate, spans)| tally.add(&account, fate.clone(), *spans));
            tally
        };
        let reason = |text| Reason::new(text);
        let steps: [&dyn Fn(); 4] = [
            &|| progress.sent(Offset(60)),
            &|| progress.passed(Offset(40), &booked(&[(Fate::Done, 25), (Fate::Duplicate, 5)])),
            &|| {
                progress.passed(
                    Offset(50),
                    &booked(&[(Fate::Quarantined(reason("refused")), 3), (Fate::Lost(reason("damaged")), 7)]),
                )
            },
            &|| progress.passed(Offset(110), &booked(&[(Fate::Shed(reason("share")), 50), (Fate::Done, 10)])),
        ];
        for step in steps {
            step();
            let ledger = progress.ledger(head);
            let part = |name: &str| ledger[name].as_u64().unwrap();
            assert_eq!(WORDS.map(part).iter().sum::<u64>() + part("pending"), 100, "{ledger}");
            assert!(part("sent") >= part("verified"), "{ledger}");
            assert_eq!(Progress::forwarding("sink", false).ledger(head).get("verified"), None, "nobody verified that");
        }
        assert_eq!(progress.ledger(head)["reasons"]["shed"], json!({ "share": 50 }));
    }

    #[test]
    fn trouble_is_over_when_it_works_again() {
        let progress = Progress::new("recorder");
        progress.failed("unavailable", &"connection refused");
        assert_eq!(progress.failing().as_deref(), Some("connection refused"));
        progress.succeeded();
        assert_eq!(progress.failing(), None);
        assert_eq!(progress.ledger(Offset(0))["last_error"], "connection refused");
        let mut page = String::new();
        progress.metrics(Offset(5), &mut page);
        assert!(
            page.contains("emberd_consumer_failures_total{consumer=\"recorder\",class=\"unavailable\"} 1"),
            "{page}"
        );
        assert!(page.contains("emberd_consumer_pending_spans{consumer=\"recorder\"} 5"), "{page}");
    }
}
