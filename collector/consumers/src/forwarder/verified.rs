//! Forwarding to Phoenix, whose word is not enough.
//!
//! Phoenix acknowledges from memory, stores some 100 spans a second, and loses what it has not stored when it ends; a span that
//! it cannot store it drops without a word. So what was acknowledged is read back, span id by span id, and the cursor moves
//! only over what was seen there. What is missing is sent again.
//!
//! One load is under way at a time, and no more spans are out than Phoenix stores in a few seconds: that keeps it busy, and its
//! pages quick. Not here: when a span counts as missing (`window.rs`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use emberd_model::ledger::{Fate, Reason, Tally};
use emberd_model::{SpanId, TraceId};
use emberd_phoenix::Sought;
use emberd_phoenix::client::{self, Client};
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::courier::{Courier, Delivered};
use super::feed::Feed;
use super::load::{Load, Part};
use super::release::Releases;
use super::source::Source;
use super::window::{Parcel, Ref, Wanted, Window};
use super::{Config, PhoenixConfig};

/// Spans in one request: Phoenix decodes them before it answers, 1 to 2 ms each when it is busy.
const LOAD_SPANS_MAX: u64 = 256;

/// Bytes kept in case they must be sent again; one load is always let through.
const WINDOW_BYTES_MAX: usize = 32 << 20;

/// The window's bounds and steps, in spans: more while what is sent is there soon, less while it is not.
const PACE_MIN: usize = 100;
const PACE_FIRST: usize = 400;
const PACE_STEP: usize = 100;
const SOON: Duration = Duration::from_secs(4);
const LATE: Duration = Duration::from_secs(8);

/// How often Phoenix is asked, from just after something was sent to when nothing arrives.
const FIRST_LOOK: Duration = Duration::from_millis(300);
const LOOK_MIN: Duration = Duration::from_millis(500);
const LOOK_MAX: Duration = Duration::from_secs(4);

/// The same while it does not answer.
const LOOK_FAILED_MAX: Duration = Duration::from_secs(10);

/// Spans looked for at once, if more are out.
const LOOK_SPANS_MIN: usize = client::SPANS_MAX;
const LOOK_SPANS_MAX: usize = 2 * client::SPANS_MAX;

/// Missing spans that are looked for in all projects at once.
const EXACT_MAX: usize = 50;

pub(super) struct Verified {
    config: Config,
    phoenix: PhoenixConfig,
    source: Source,
    courier: Arc<Courier>,
    client: Arc<Client>,
    window: Window,
    feed: Feed,
    /// Loads to be sent again, before anything new.
    again: VecDeque<(Load, Vec<Ref>)>,
    pace: usize,
    look: Look,
}

/// When Phoenix is asked next, and for how much.
struct Look {
    at: Instant,
    every: Duration,
    last: Instant,
    /// Spans that arrive in a second, as seen lately.
    rate: f64,
    failures: u32,
}

/// A load on its way.
enum Outgoing {
    New(Parcel),
    Again(Vec<Ref>),
}

type Sending = BoxFuture<'static, (Outgoing, u64, Delivered)>;

impl Verified {
    pub(super) fn new(config: Config, source: Source, courier: Arc<Courier>, client: Arc<Client>) -> Self {
        let phoenix = config.phoenix.clone().unwrap_or_else(|| PhoenixConfig::at(""));
        let window = Window::new(phoenix.grace, phoenix.idle_grace);
        let now = Instant::now();
        let look = Look { at: now, every: LOOK_MIN, last: now, rate: 0.0, failures: 0 };
        let feed = Feed::new(courier.clone(), true, LOAD_SPANS_MAX);
        let pace = PACE_FIRST.min(phoenix.unverified_spans_max.max(1));
        Self { config, phoenix, source, courier, client, window, feed, again: VecDeque::new(), pace, look }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut releases = Releases::new(&self.config.name, self.courier.clone(), Some(self.client.clone()));
        let mut sending: Option<Sending> = None;
        let mut stop_at: Option<Instant> = None;
        loop {
            if sending.is_none() && stop_at.is_none() {
                self.feed.fill(&mut self.source).await;
                sending = self.next_load();
            }
            let idle = sending.is_none() && self.window.waiting() == 0;
            if idle && (stop_at.is_some() || (self.feed.is_at_end() && self.again.is_empty())) {
                break;
            }
            let wants_read = stop_at.is_none() && self.room() > 0 && self.feed.wants_read(&self.source);
            let hold_until = self.feed.hold_until(&self.source);
            tokio::select! {
                biased;
                () = stop.cancelled(), if stop_at.is_none() => stop_at = Some(Instant::now() + self.config.stop_within),
                () = tokio::time::sleep_until(stop_at.unwrap_or(self.look.at)), if stop_at.is_some() => break,
                (outgoing, breaks, delivered) = arrival(&mut sending), if sending.is_some() => {
                    sending = None;
                    self.sent(outgoing, breaks, &delivered);
                }
                () = tokio::time::sleep_until(self.look.at), if self.window.waiting() > 0 => self.look().await,
                () = self.source.due(), if self.source.is_behind() => self.source.store().await,
                read = self.source.next(self.courier.bytes_max()), if wants_read => self.feed.take_in(read, &mut self.source).await,
                () = tokio::time::sleep_until(hold_until), if wants_read => self.feed.hurry(&mut self.source).await,
                tried = releases.next(), if stop_at.is_none() => releases.settle(tried, &mut self.source).await,
            }
        }
        self.source.store().await;
    }

    /// How many spans may still go out.
    fn room(&self) -> usize {
        let full = self.window.bytes() >= WINDOW_BYTES_MAX && self.window.waiting() > 0;
        if full { 0 } else { self.pace.saturating_sub(self.window.waiting()) }
    }

    /// The next load, on its way.
    fn next_load(&mut self) -> Option<Sending> {
        let (load, outgoing) = if let Some((load, spans)) = self.again.pop_front() {
            self.source.progress.resent(load.spans);
            (load, Outgoing::Again(spans))
        } else {
            let parcel = self.next_parcel()?;
            (parcel.load().clone(), Outgoing::New(parcel))
        };
        let courier = self.courier.clone();
        Some(Box::pin(async move {
            // What was acknowledged before a break of the connection may be gone; what is sent after it is not.
            let delivered = courier.deliver(load).await;
            let breaks = courier.breaks();
            (outgoing, breaks, delivered)
        }))
    }

    fn next_parcel(&mut self) -> Option<Parcel> {
        let room = self.room() as u64;
        if room == 0 {
            return None;
        }
        let spans_max = LOAD_SPANS_MAX.min(room);
        let (mut load, mut end, mut aside) = (Load::default(), None, Tally::default());
        while let Some(piece) = self.feed.pieces.front()
            && piece.part.as_ref().is_none_or(|part| self.fits(&load, part, spans_max))
            && let Some(piece) = self.feed.pieces.pop_front()
        {
            piece.part.into_iter().for_each(|part| load.push(part));
            end = Some(piece.end);
            aside.merge(&piece.aside);
        }
        let parcel = Parcel::new(load, end?, aside);
        if parcel.load().spans > 0 {
            return Some(parcel);
        }
        // Nothing of it is sent: it waits its turn among what is, for the cursor's sake.
        self.window.sent(parcel, &[], self.courier.breaks(), Instant::now());
        self.move_on();
        None
    }

    /// Whether a part may go with a load; the first always may.
    fn fits(&self, load: &Load, part: &Part, spans_max: u64) -> bool {
        load.spans == 0
            || (load.spans + part.spans <= spans_max && load.bytes + part.body.len() <= self.courier.bytes_max())
    }

    fn sent(&mut self, outgoing: Outgoing, breaks: u64, delivered: &Delivered) {
        let now = Instant::now();
        if delivered.was_slow {
            self.pace = (self.pace / 2).max(PACE_MIN).min(self.phoenix.unverified_spans_max);
        }
        match outgoing {
            Outgoing::New(parcel) => {
                if let Some(last) = parcel.load().parts.last() {
                    self.source.progress.sent(last.first.plus(last.spans));
                }
                if self.window.waiting() == 0 {
                    self.look.begin(now);
                }
                self.window.sent(parcel, &delivered.aside, breaks, now);
            }
            Outgoing::Again(spans) => {
                self.window.sent_again(&spans, &delivered.aside, breaks, now);
                self.look.begin(now);
            }
        }
        self.move_on();
    }

    fn move_on(&mut self) {
        if let Some((end, tally)) = self.window.settled_to() {
            self.source.reach(end, &tally);
        }
    }

    /// Looks what Phoenix holds of what is out.
    async fn look(&mut self) {
        let wanted = self.window.wanted(self.look.spans(self.window.waiting()), Instant::now());
        if wanted.is_empty() {
            return self.look.later(Instant::now());
        }
        let sought: Vec<_> =
            wanted.iter().map(|wanted| Sought { project: &wanted.project, span: wanted.span }).collect();
        let before = self.courier.breaks();
        match self.client.held(&sought).await {
            Ok(held) => self.take_in_look(&wanted, &held, before).await,
            Err(error) => self.look_failed(&error),
        }
    }

    async fn take_in_look(&mut self, wanted: &[Wanted], held: &HashMap<SpanId, TraceId>, breaks: u64) {
        let now = Instant::now();
        if self.look.failures > 0 {
            self.look.failures = 0;
            self.source.progress.succeeded();
        }
        let full = self.window.waiting() + PACE_STEP >= self.pace;
        let seen = self.window.seen(wanted, held, breaks, now);
        self.look.saw(seen.found, !seen.lost.is_empty(), now);
        if seen.slowest > LATE {
            self.pace = (self.pace * 4 / 5).max(PACE_MIN);
        } else if full && seen.found > 0 && seen.slowest < SOON {
            self.pace += PACE_STEP;
        }
        self.pace = self.pace.min(self.phoenix.unverified_spans_max.max(1));
        for at in seen.collided {
            self.put_aside(at, "phoenix_id_collision", "phoenix holds this span id under another trace").await;
        }
        let mut again = seen.lost;
        again.extend(self.still_missing(&seen.missing, wanted).await);
        self.again.extend(self.window.again(again, LOAD_SPANS_MAX, self.courier.bytes_max()));
        self.move_on();
    }

    /// Those of the missing that are nowhere in Phoenix and are worth sending again.
    async fn still_missing(&mut self, missing: &[Ref], wanted: &[Wanted]) -> Vec<Ref> {
        let missing: Vec<_> =
            wanted.iter().filter(|wanted| missing.contains(&wanted.at)).take(EXACT_MAX).cloned().collect();
        if missing.is_empty() {
            return Vec::new();
        }
        let ids: Vec<_> = missing.iter().map(|missing| missing.span).collect();
        let found = match self.client.whereabouts(&ids).await {
            Ok(found) => found,
            Err(error) => {
                self.look_failed(&error);
                return Vec::new();
            }
        };
        let mut again = Vec::new();
        for Wanted { at, trace, span, .. } in missing {
            match found.get(&span) {
                // Its trace was filed under another project, or moved there.
                Some(under) if *under == trace => self.window.settle(at, Fate::Done),
                Some(under) => {
                    let answer = format!("phoenix holds this span id under trace {under}");
                    self.put_aside(at, "phoenix_id_collision", &answer).await;
                }
                None if self.window.blame(at) => {
                    let answer = "acknowledged three times and not stored, while other spans were";
                    self.put_aside(at, "phoenix_drops", answer).await;
                }
                None => again.push(at),
            }
        }
        again
    }

    async fn put_aside(&mut self, at: Ref, reason: &str, answer: &str) {
        if let Some(load) = self.window.alone(at) {
            self.courier.put_aside(&load, 1, reason, answer.to_owned()).await;
        }
        self.window.settle(at, Fate::Quarantined(Reason::new(reason)));
    }

    fn look_failed(&mut self, error: &client::Error) {
        let class = match error {
            client::Error::Unreachable(_) => {
                self.courier.note_break();
                "read_back_unreachable"
            }
            client::Error::TimedOut => "read_back_timed_out",
            client::Error::Unauthorized { .. } => {
                self.renew_key();
                "read_back_unauthorized"
            }
            client::Error::Answer { .. } | client::Error::Config { .. } => "read_back",
        };
        tracing::warn!(consumer = %self.config.name, %error, "what was sent cannot be read back");
        self.source.progress.failed(class, error);
        self.look.failures += 1;
        self.look.at = Instant::now() + self.config.backoff.wait(self.look.failures).min(LOOK_FAILED_MAX);
    }

    fn renew_key(&self) {
        let Some(key) = &self.config.key else { return };
        let renewed = key.read().and_then(|key| Ok(self.client.set_key(Some(&key))?));
        if let Err(error) = renewed {
            self.source.progress.failed("read_back_unauthorized", &error);
        }
    }
}

impl Look {
    /// Something was sent while nothing was out.
    fn begin(&mut self, now: Instant) {
        self.every = LOOK_MIN;
        self.last = now;
        if self.failures == 0 {
            self.at = now + FIRST_LOOK;
        }
    }

    /// How many spans to look for, of those that are out: about as many as should have arrived, as each costs Phoenix time.
    fn spans(&self, waiting: usize) -> usize {
        let due = self.last.elapsed().as_secs_f64() * self.rate * 1.5;
        if waiting <= LOOK_SPANS_MIN { waiting } else { (due as usize).clamp(LOOK_SPANS_MIN / 2, LOOK_SPANS_MAX) }
    }

    fn saw(&mut self, found: usize, lost: bool, now: Instant) {
        let seconds = now.duration_since(self.last).as_secs_f64().max(0.1);
        self.rate = self.rate * 0.5 + found as f64 / seconds * 0.5;
        self.last = now;
        self.every = if found > 0 || lost { LOOK_MIN } else { (self.every * 3 / 2).min(LOOK_MAX) };
        self.at = now + self.every;
    }

    fn later(&mut self, now: Instant) {
        self.at = now + FIRST_LOOK;
    }
}

async fn arrival(sending: &mut Option<Sending>) -> (Outgoing, u64, Delivered) {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}
