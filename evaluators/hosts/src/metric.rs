//! An evaluator of a plugin, as everybody else sees it: the kit's `Evaluator`.
//!
//! Promise: each example of a batch gets one outcome. What is unanswered at the deadline is `timeout`. When the stream breaks off, the
//! examples without an answer are asked once more, one by one, so that one that kills the plugin takes no other with it. A `plugin_fault`
//! that says when to come again is one of examples that nobody was asked about: the plugin is down, or its circuit open. Scores are only
//! given under the description with which the evaluator was built: a plugin that came back as another one is a fault.

use std::collections::BTreeMap;
use std::sync::Arc;

use emberd_evaluators_kit::contract::Description;
use emberd_evaluators_kit::{Class, Evaluator, Example, Failure, Identity, Mapping, Outcome};
use emberd_proto::evaluator::v1 as pb;
use futures_util::future::ready;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::ledger::{Ledger, fault};
use crate::names::cut;
use crate::plugin::{Fault, Live, Plugin};
use crate::request::Shape;

/// An evaluator of a plugin with a configuration and a mapping.
#[derive(Debug)]
pub struct Metric {
    pub(crate) plugin: Arc<Plugin>,
    /// Its name without the plugin's.
    pub(crate) name: String,
    pub(crate) description: Description,
    pub(crate) identity: Identity,
    pub(crate) config_json: String,
    pub(crate) mapping: Mapping,
}

/// Examples on the wire, by their places in the batch.
type Pending = BTreeMap<usize, pb::Example>;
type Out = UnboundedSender<(usize, Outcome)>;

/// How an attempt ended for the examples that it leaves without an outcome.
enum End {
    /// There are none.
    Answered,
    /// They were not asked, or not answered, for this reason.
    Failed(Failure),
    /// The stream broke off while they waited.
    Broken(String),
}

impl Evaluator for Metric {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn evaluate<'a>(&'a self, batch: &'a [Example]) -> BoxStream<'a, (usize, Outcome)> {
        let (out, outcomes) = unbounded_channel();
        // The work is polled with its results, and dropped with them: dropping the stream is cancelling it.
        let work = stream::once(self.judge(batch, out)).filter_map(|()| ready(None));
        stream::select(UnboundedReceiverStream::new(outcomes), work).boxed()
    }
}

impl Metric {
    async fn judge(&self, batch: &[Example], out: Out) {
        let shape = self.shape();
        let mut pending = Pending::new();
        for (at, example) in batch.iter().enumerate() {
            match shape.example(at, example) {
                Ok(wire) => drop(pending.insert(at, wire)),
                Err(failure) => give(&out, at, failure.into()),
            }
        }
        let bounds = &self.plugin.config.bounds;
        let end = self.attempt(&mut pending, Instant::now() + bounds.deadline, false, &out).await;
        match end {
            End::Broken(_) => self.one_by_one(pending, &out).await,
            end => give_all(&out, pending.into_keys(), end),
        }
    }

    /// Each example once more, with nothing beside it: who kills the plugin is found, and takes no other with it, also of no other batch.
    async fn one_by_one(&self, pending: Pending, out: &Out) {
        let bounds = &self.plugin.config.bounds;
        let by = Instant::now() + bounds.deadline + bounds.start;
        for (at, example) in pending {
            let mut alone = Pending::from([(at, example)]);
            let end = self.attempt(&mut alone, by, true, out).await;
            give_all(out, alone.into_keys(), end);
        }
    }

    /// Asks for all that is pending, and takes out what is answered. `alone`: while nobody else asks the plugin anything.
    async fn attempt(&self, pending: &mut Pending, by: Instant, alone: bool, out: &Out) -> End {
        if pending.is_empty() {
            return End::Answered;
        }
        match self.try_attempt(pending, by, alone, out).await {
            Ok(end) => end,
            Err(failure) => End::Failed(failure),
        }
    }

    async fn try_attempt(&self, pending: &mut Pending, by: Instant, alone: bool, out: &Out) -> Result<End, Failure> {
        loop {
            // Who asks alone was in its hands before, when its stream broke off: that its circuit is open now is its answer.
            if alone && self.plugin.is_open(&self.name) {
                return Err(fault("the evaluator's circuit opened: it failed too often in a row"));
            }
            let live = self.plugin.ready(by, alone).await?;
            self.is_still_itself(&live)?;
            // The evaluator's own place first: who waits for it keeps no other evaluator of the plugin waiting.
            let _own = live.place(&self.name, by).await?;
            let _place = self.plugin.place(alone, by).await?;
            // It may have died while this waited.
            if !Arc::ptr_eq(&live, &self.plugin.ready(by, alone).await?) {
                continue;
            }
            self.plugin.admit(&self.name)?;
            let deadline = by.min(Instant::now() + self.plugin.config.bounds.deadline);
            return Ok(self.ask(&live, pending, deadline, out).await);
        }
    }

    async fn ask(&self, live: &Live, pending: &mut Pending, deadline: Instant, out: &Out) -> End {
        let mut ledger = Ledger::new(&self.description, pending.keys().copied());
        let requests = self.shape().requests(pending.values().cloned().collect());
        let mut responses = live.call(requests, &self.plugin.config, deadline);
        let end = loop {
            if ledger.is_done() {
                break End::Answered;
            }
            if ledger.floods() {
                break End::Failed(fault("the plugin floods: results for examples that it was not asked about"));
            }
            match timeout_at(deadline, responses.next()).await {
                Err(_) => break End::Failed(Failure::new(Class::Timeout, "no answer from the plugin at the deadline")),
                Ok(None) => break End::Failed(fault("the plugin ended its answer without this example")),
                Ok(Some(Err(Fault::Spent(what)))) => break End::Failed(Failure::new(Class::Timeout, what)),
                Ok(Some(Err(Fault::Broken(what)))) => break End::Broken(what),
                Ok(Some(Ok(response))) => {
                    for (at, outcome) in ledger.take(response) {
                        give(out, at, outcome);
                    }
                }
            }
        };
        let rest = ledger.rest();
        pending.retain(|at, _| rest.contains(at));
        self.book(&end, &ledger, live, rest.len());
        end
    }

    /// What this call says about the plugin.
    fn book(&self, end: &End, ledger: &Ledger<'_>, live: &Live, unanswered: usize) {
        let late = matches!(end, End::Failed(failure) if failure.class == Class::Timeout);
        if late {
            live.suspected.notify_one();
        }
        // One death breaks the streams of all who were asking, and is one fault.
        if matches!(end, End::Broken(_)) && !live.doubt() {
            return;
        }
        match end {
            End::Answered if !ledger.is_faulty() => self.plugin.succeed(&self.name, live),
            // Slow with some, and sound with others: neither praise nor blame.
            End::Failed(_) if late && !ledger.is_faulty() => {}
            _ => {
                tracing::debug!(plugin = self.plugin.name, evaluator = self.name, unanswered, "plugin fault");
                self.plugin.fail(&self.name, live);
            }
        }
    }

    fn is_still_itself(&self, live: &Live) -> Result<(), Failure> {
        match live.catalog.get(&self.name) {
            Some(description) if *description == self.description => Ok(()),
            Some(description) => {
                let (was, is) = (&self.description.version, &description.version);
                Err(fault(format!(
                    "the plugin describes this evaluator otherwise than before: version {was}, now {is}"
                )))
            }
            None => Err(fault("the plugin does not have this evaluator any more")),
        }
    }

    fn shape(&self) -> Shape<'_> {
        Shape {
            evaluator: &self.name,
            config_json: &self.config_json,
            mapping: &self.mapping,
            description: &self.description,
            message_bytes: self.plugin.config.bounds.message_bytes,
        }
    }
}

fn give(out: &Out, at: usize, outcome: Outcome) {
    // Nobody listens: the caller has dropped the stream, and this work with it.
    let _ = out.send((at, outcome));
}

fn give_all(out: &Out, places: impl Iterator<Item = usize>, end: End) {
    let failure = match end {
        End::Answered => return,
        End::Failed(failure) => failure,
        End::Broken(what) => fault(format!("the plugin broke off: {}", cut(&what, 512))),
    };
    for at in places {
        give(out, at, failure.clone().into());
    }
}
