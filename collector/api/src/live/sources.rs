//! Where events come from: jobs as they go on, traces as their rows are written here, and traces that other emberds on the same database
//! tell of.
//!
//! Promise: while no socket listens here, nor did lately, and no other emberd asks, nothing is gathered. Events of a moment go together;
//! what comes faster than it can be told (`pace`) is not, and counted.
//! Between emberds: who has sockets says so every [`ASK_EVERY`] under the topic [`WANTED`]; whoever heard that lately tells its traces
//! under [`TRACES`], some in a message. How jobs go on, each learns from the database itself; but one that was short may have come and gone
//! between two looks, so that its end is told under [`ENDED`].

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use emberd_evaluators_jobs::Event as Progress;
use emberd_store::told::{Completed, Heard, MESSAGE_BYTES_MAX};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::event::{Event, Id};
use super::hub::{Batch, PAST_TIME};
use super::pace::Pace;
use crate::Shared;
use crate::flags::Part;
use crate::neighbours::heard;

/// How long an event waits for company.
const TOGETHER: Duration = Duration::from_millis(20);
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How long an emberd that asked counts as listening.
const ASKED_TIME: Duration = Duration::from_secs(35);
const WANTED: &str = "sockets";
const TRACES: &str = "traces";
const ENDED: &str = "ended";
/// Jobs of which it is remembered that their end was told.
const ENDED_MAX: usize = 10_000;

/// Whether there is anything to tell of, for anyone.
pub(crate) fn is_there(shared: &Shared) -> bool {
    [Part::Evaluations, Part::Traces].into_iter().any(|part| shared.gate.flags().is_on(part))
}

/// Gathers and tells events until `stop`.
pub(crate) async fn run(shared: &Shared, stop: &CancellationToken) {
    if !is_there(shared) {
        return stop.cancelled().await;
    }
    let mut sources = Sources::new(shared);
    let mut sockets = shared.live.hub.sockets().subscribe();
    let mut others = shared.neighbours.listen();
    loop {
        let due = sources.due();
        tokio::select! {
            () = stop.cancelled() => return,
            _ = sockets.changed() => sources.listeners(*sockets.borrow_and_update()),
            heard = heard(&mut others) => sources.heard(heard),
            progress = received(&mut sources.jobs) => sources.job(progress),
            rows = received(&mut sources.rows) => sources.traces(rows),
            () = tokio::time::sleep_until(due) => {}
        }
        sources.turn().await;
    }
}

/// What comes next; never, where nothing is gathered.
async fn received<T: Clone>(from: &mut Option<Receiver<T>>) -> Result<T, RecvError> {
    match from {
        Some(from) => from.recv().await,
        None => std::future::pending().await,
    }
}

struct Sources<'a> {
    shared: &'a Shared,
    origin: u32,
    nr: u64,
    jobs: Option<Receiver<Arc<Progress>>>,
    rows: Option<Receiver<Arc<[Completed]>>>,
    /// Until when somebody listens here, or has not been gone for long.
    here_until: Instant,
    sockets: usize,
    /// Until when somebody listens at another emberd.
    there_until: Instant,
    ask_at: Instant,
    batch: Batch,
    /// Of `batch`, what the others are told.
    own: Vec<Arc<Event>>,
    tell_at: Option<Instant>,
    /// Jobs that are over, and of which all have been told.
    ended: HashSet<Uuid>,
    /// Of those, what the others are yet to be told, and what they told.
    ended_here: Vec<String>,
    ended_there: Vec<Uuid>,
    pace: Pace,
}

impl<'a> Sources<'a> {
    fn new(shared: &'a Shared) -> Self {
        let now = Instant::now();
        Self {
            shared,
            origin: Uuid::new_v4().as_u128() as u32,
            nr: 0,
            jobs: None,
            rows: None,
            here_until: now,
            sockets: 0,
            there_until: now,
            ask_at: now,
            batch: Batch::default(),
            own: Vec::new(),
            tell_at: None,
            ended: HashSet::new(),
            ended_here: Vec::new(),
            ended_there: Vec::new(),
            pace: Pace::new(now),
        }
    }

    /// When something is to be done though nothing happens.
    fn due(&self) -> Instant {
        let now = Instant::now();
        let idle = now + ASK_EVERY;
        self.tell_at.unwrap_or(idle).min(if self.is_wanted_here(now) { self.ask_at } else { idle })
    }

    fn is_wanted_here(&self, now: Instant) -> bool {
        self.sockets > 0 || now < self.here_until
    }

    fn listeners(&mut self, sockets: usize) {
        if self.sockets > 0 && sockets == 0 {
            self.here_until = Instant::now() + PAST_TIME;
        }
        self.sockets = sockets;
        self.gather();
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Missed => self.shared.live.hub.gap(self.now()),
            Heard::Message { topic, .. } if topic == WANTED => {
                self.there_until = Instant::now() + ASKED_TIME;
                self.gather();
            }
            Heard::Message { topic, body } if topic == TRACES && self.is_wanted_here(Instant::now()) => {
                let events = body.lines().filter_map(Event::heard).collect::<Vec<_>>();
                events.into_iter().for_each(|event| self.take(Arc::new(event), false));
            }
            Heard::Message { topic, body } if topic == ENDED && self.is_wanted_here(Instant::now()) => {
                let jobs = body.lines().filter_map(|id| Uuid::try_parse(id).ok());
                self.ended_there.extend(jobs);
                self.tell_soon();
            }
            Heard::Message { .. } => {}
        }
    }

    /// Notes that a job is over, or no longer; whether that is news.
    fn is_news(&mut self, job: Uuid, is_over: bool) -> bool {
        if !is_over {
            self.ended.remove(&job);
            return false;
        }
        if self.ended.len() >= ENDED_MAX {
            self.ended.clear();
        }
        self.ended.insert(job)
    }

    fn job(&mut self, progress: Result<Arc<Progress>, RecvError>) {
        match progress {
            Ok(progress) => {
                if self.is_news(progress.evaluation_id, progress.is_over()) && Instant::now() < self.there_until {
                    self.ended_here.push(progress.evaluation_id.to_string());
                }
                if let Some(event) = Event::of_evaluation(self.id(), &progress) {
                    self.take(Arc::new(event), false);
                }
            }
            Err(RecvError::Closed) => self.jobs = None,
            Err(RecvError::Lagged(missed)) => self.skip(missed),
        }
    }

    fn traces(&mut self, rows: Result<Arc<[Completed]>, RecvError>) {
        match rows {
            Ok(rows) => {
                for row in rows.iter() {
                    if let Some(event) = Event::of_trace(self.id(), row) {
                        self.take(Arc::new(event), true);
                    }
                }
            }
            Err(RecvError::Closed) => self.rows = None,
            Err(RecvError::Lagged(missed)) => self.skip(missed),
        }
    }

    fn id(&mut self) -> Id {
        self.nr += 1;
        Id { at: self.now(), origin: self.origin, nr: self.nr }
    }

    fn now(&self) -> u64 {
        self.shared.clock.now().0 / 1_000
    }

    fn take(&mut self, event: Arc<Event>, is_own_trace: bool) {
        let now = Instant::now();
        if !self.pace.take(now, self.shared.live.hub.told.load(Ordering::Relaxed)) {
            return self.skip(1);
        }
        if is_own_trace && now < self.there_until {
            self.own.push(Arc::clone(&event));
        }
        self.batch.events.push(event);
        self.tell_soon();
    }

    fn skip(&mut self, count: u64) {
        self.batch.skipped += count;
        self.tell_soon();
    }

    fn tell_soon(&mut self) {
        self.tell_at.get_or_insert_with(|| Instant::now() + TOGETHER);
    }

    /// Listens to what somebody wants to hear of, and to nothing else.
    fn gather(&mut self) {
        let now = Instant::now();
        let (here, there) = (self.is_wanted_here(now), now < self.there_until);
        let flags = self.shared.gate.flags();
        let is_wanted = |part| (here || there) && flags.is_on(part);
        let (jobs, rows) = (is_wanted(Part::Evaluations), is_wanted(Part::Traces));
        if jobs != self.jobs.is_some() {
            self.jobs = jobs.then(|| self.shared.evaluations.events());
        }
        if rows != self.rows.is_some() {
            self.rows = rows.then(|| self.shared.store.completed());
        }
        if here {
            self.shared.live.hub.begin(self.now());
        } else {
            self.shared.live.hub.end();
        }
    }

    /// Does what is due.
    async fn turn(&mut self) {
        let now = Instant::now();
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            let batch = std::mem::take(&mut self.batch);
            if self.is_wanted_here(now) {
                self.shared.live.hub.tell(batch, self.now());
            }
            let own = std::mem::take(&mut self.own);
            self.shared.neighbours.tell(TRACES, &messages(own.iter().map(|event| event.body.to_string()))).await;
            let ended = messages(std::mem::take(&mut self.ended_here).into_iter());
            self.shared.neighbours.tell(ENDED, &ended).await;
            for job in std::mem::take(&mut self.ended_there) {
                // What comes of it here is no news for those who said it.
                self.is_news(job, true);
                self.shared.evaluations.tell(job).await;
            }
        }
        if self.is_wanted_here(now) && now >= self.ask_at {
            self.ask_at = now + ASK_EVERY;
            self.shared.neighbours.tell(WANTED, &["1".to_owned()]).await;
        }
        self.gather();
    }
}

/// Lines in as few messages as they fit.
fn messages(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut messages = vec![String::new()];
    for line in lines {
        let last = messages.last_mut().expect("there is one from the start");
        if last.is_empty() {
            last.push_str(&line);
        } else if last.len() + 1 + line.len() <= MESSAGE_BYTES_MAX {
            last.push('\n');
            last.push_str(&line);
        } else {
            messages.push(line);
        }
    }
    messages.retain(|message| !message.is_empty());
    messages
}
