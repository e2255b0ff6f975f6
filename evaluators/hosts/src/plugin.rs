//! One plugin: what state it is in, how many ask it at once, and which of its evaluators are not asked at the moment.
//!
//! Promise: whoever waits for a plugin waits until its deadline at most, and not at all for one that keeps dying.
//! Not here: who starts and ends it (`child`, `remote`, `wasm`); what is asked (`metric`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_evaluators_kit::contract::Description;
use emberd_evaluators_kit::{Class, Failure};
use emberd_model::breaker::Breaker;
use emberd_proto::evaluator::v1 as pb;
use futures_util::stream::BoxStream;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::ledger::fault;
use crate::{remote, wasm};

/// Failures in a row after which nobody waits for the next start, but who asks alone.
const PATIENT_FAILURES: u32 = 3;
const WHY_BYTES_MAX: usize = 512;

/// A configured plugin.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    pub(crate) config: Config,
    state: watch::Sender<State>,
    places: Semaphore,
    breakers: Mutex<BTreeMap<String, Breaker>>,
}

/// What a plugin is doing.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// It was not described yet.
    Starting,
    /// It can be asked.
    Ready(Arc<Live>),
    /// It cannot, for this reason, after so many failures in a row.
    Down {
        /// Why.
        why: String,
        /// In a row.
        failures: u32,
    },
    /// emberd is stopping.
    Stopped,
}

/// A plugin that was described, from this start of it to its end.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) line: Line,
    pub(crate) catalog: Catalog,
    pub(crate) pid: Option<u32>,
    /// Somebody waited in vain: is it still there?
    pub(crate) suspected: Notify,
    /// It is to be started afresh.
    pub(crate) condemned: Notify,
    /// Places for batches of each evaluator, as many as it says it bears.
    places: BTreeMap<String, Semaphore>,
    answered: AtomicBool,
    /// Its stream broke off, and it has given no sign of life since.
    doubtful: AtomicBool,
}

/// How a plugin is reached.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    /// Over gRPC.
    Grpc(Channel),
    /// In an interpreter here.
    Wasm(Arc<wasm::Module>),
}

/// Why a stream of results broke off.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The plugin died, or sent what cannot be read.
    Broken(String),
    /// It took all that it may.
    Spent(String),
}

/// Results as they come.
pub(crate) type Responses = BoxStream<'static, Result<pb::EvaluateResponse, Fault>>;

impl Live {
    pub(crate) fn new(line: Line, catalog: Catalog, pid: Option<u32>) -> Self {
        let [suspected, condemned] = [Notify::new(), Notify::new()];
        let [answered, doubtful] = [AtomicBool::new(false), AtomicBool::new(false)];
        let batches = |one: &Description| Semaphore::new(one.limits.concurrent_batches_max.max(1) as usize);
        let places = catalog.iter().map(|(name, one)| (name.clone(), batches(one))).collect();
        Self { line, catalog, pid, suspected, condemned, places, answered, doubtful }
    }

    /// A place among the batches of this evaluator.
    pub(crate) async fn place(&self, evaluator: &str, by: Instant) -> Result<SemaphorePermit<'_>, Failure> {
        let places =
            self.places.get(evaluator).ok_or_else(|| fault("the plugin does not have this evaluator any more"))?;
        place(places, 1, by).await
    }

    /// Its stream broke off: it is asked for a sign of life before it is asked for more. Whether that is news.
    pub(crate) fn doubt(&self) -> bool {
        // A module has no life to lose.
        let is_news = matches!(self.line, Line::Wasm(_)) || !self.doubtful.swap(true, Ordering::AcqRel);
        self.suspected.notify_one();
        is_news
    }

    /// It gave a sound answer since its start.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Asks it.
    pub(crate) fn call(&self, requests: Vec<pb::EvaluateRequest>, config: &Config, deadline: Instant) -> Responses {
        match &self.line {
            Line::Grpc(channel) => remote::call(channel.clone(), requests, config.bounds.message_bytes, deadline),
            Line::Wasm(module) => wasm::call(Arc::clone(module), requests, deadline),
        }
    }
}

impl Plugin {
    pub(crate) fn new(name: String, config: Config) -> Self {
        let places = Semaphore::new(config.bounds.batches_in_flight);
        Self { name, config, state: watch::Sender::new(State::Starting), places, breakers: Mutex::default() }
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn is_now(&self, state: State) {
        match &state {
            State::Ready(live) => {
                tracing::info!(plugin = self.name, evaluators = live.catalog.len(), pid = live.pid, "plugin is ready");
            }
            State::Down { why, failures } => tracing::warn!(plugin = self.name, failures, why, "plugin is down"),
            State::Starting | State::Stopped => {}
        }
        self.state.send_replace(state);
    }

    /// It gave a sign of life: those who waited for one may ask again.
    pub(crate) fn lives(&self, live: &Live) {
        if live.doubtful.swap(false, Ordering::Release) {
            self.state.send_modify(|_| {});
        }
    }

    pub(crate) fn is_down(&self, why: &str, failures: u32) {
        self.is_now(State::Down { why: crate::names::cut(why, WHY_BYTES_MAX).to_owned(), failures });
    }

    /// Waits until it can be asked. Who asks `alone` was in its hands when it died, and waits longer: if it always dies, its circuit opens
    /// before that.
    pub(crate) async fn ready(&self, by: Instant, alone: bool) -> Result<Arc<Live>, Failure> {
        let patience = PATIENT_FAILURES + if alone { self.config.bounds.faults_in_a_row } else { 0 };
        let mut states = self.state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            match &state {
                State::Ready(live) if !live.doubtful.load(Ordering::Acquire) => return Ok(Arc::clone(live)),
                State::Ready(_) => {}
                State::Stopped => return Err(Failure::new(Class::Cancelled, "emberd is stopping")),
                State::Down { why, failures } if *failures >= patience => return Err(down(why, *failures)),
                State::Down { .. } | State::Starting => {}
            }
            match timeout_at(by, states.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Failure::new(Class::Cancelled, "emberd is stopping")),
                Err(_) => {
                    return Err(match state {
                        State::Down { why, failures } => down(&why, failures),
                        _ => Failure::new(Class::Timeout, "the plugin is still starting"),
                    });
                }
            }
        }
    }

    /// A place among those who ask at once, or all places.
    pub(crate) async fn place(&self, alone: bool, by: Instant) -> Result<SemaphorePermit<'_>, Failure> {
        let all = u32::try_from(self.config.bounds.batches_in_flight).unwrap_or(u32::MAX);
        place(&self.places, if alone { all } else { 1 }, by).await
    }

    /// Whether this evaluator is asked now; if not, the failure says when to come again.
    pub(crate) fn admit(&self, evaluator: &str) -> Result<(), Failure> {
        let patience = self.config.bounds.deadline + Duration::from_secs(1);
        self.breaker(evaluator, |breaker| breaker.admit(Instant::now().into_std(), patience)).map_err(|wait| {
            let mut failure = fault("the evaluator's circuit is open: it has failed too often in a row");
            failure.retry_after = Some(wait);
            failure
        })
    }

    /// Whether this evaluator's circuit is open.
    pub(crate) fn is_open(&self, evaluator: &str) -> bool {
        self.breaker(evaluator, |breaker| breaker.is_open())
    }

    /// A call was answered as it should be.
    pub(crate) fn succeed(&self, evaluator: &str, live: &Live) {
        live.answered.store(true, Ordering::Relaxed);
        self.breaker(evaluator, Breaker::succeed);
    }

    /// A call ended in a fault of the plugin.
    pub(crate) fn fail(&self, evaluator: &str, live: &Live) {
        if self.breaker(evaluator, |breaker| breaker.fail(Instant::now().into_std())) {
            tracing::warn!(plugin = self.name, evaluator, "evaluator fails too often: its circuit is open");
            live.condemned.notify_one();
        }
    }

    /// The evaluators that are not asked at the moment.
    pub(crate) fn open_circuits(&self) -> Vec<String> {
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.iter().filter(|(_, breaker)| breaker.is_open()).map(|(name, _)| name.clone()).collect()
    }

    fn breaker<T>(&self, evaluator: &str, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = &self.config.bounds;
        // Bounded: only evaluators out of a catalog have metrics that ask.
        let new = || Breaker::new(bounds.faults_in_a_row, bounds.cooldown);
        act(breakers.entry(evaluator.to_owned()).or_insert_with(new))
    }
}

/// Nobody was asked, so the failure says when to come again.
fn down(why: &str, failures: u32) -> Failure {
    let mut failure = fault(format!("the plugin is down: {why}"));
    failure.retry_after = Some(crate::child::backoff(failures));
    failure
}

async fn place(places: &Semaphore, count: u32, by: Instant) -> Result<SemaphorePermit<'_>, Failure> {
    match timeout_at(by, places.acquire_many(count)).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Failure::new(Class::Timeout, "the plugin was busy with other batches all the time")),
    }
}
