//! The one interface of all evaluators: built in, judging models, plugins.
//!
//! Promise: a batch of examples gives a stream of outcomes, each with the place of its example, in any order, as soon as it is known.
//! Dropping the stream is cancelling it. [`collect`] makes one outcome of each example whatever the stream does: what did not come is
//! a failure, what comes twice or for no example is dropped.
//! Not here: deadlines, rates, budgets, retries (jobs wrap the stream), processes and sandboxes (hosts implement it).
//! Kept by: `tests/it/contract.rs`.

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::contract::{Class, Description, Failure, Outcome, Score};
use crate::example::Example;
use crate::fields::{Fields, Mapping};
use crate::identity::Identity;

/// Something that judges examples.
pub trait Evaluator: Send + Sync {
    /// What it is called, needs and gives.
    fn describe(&self) -> &Description;

    /// Name, version and configuration: what its results depend on beside the example.
    fn identity(&self) -> &Identity;

    /// Judges a batch: (index into `batch`, outcome), each as soon as it is known.
    ///
    /// Functions judge when they are polled, and megabytes may take them a second: poll them where that is no harm.
    fn evaluate<'a>(&'a self, batch: &'a [Example]) -> BoxStream<'a, (usize, Outcome)>;
}

/// A function of an example's fields: what a built-in implements.
pub trait Code: Send + Sync {
    /// Judges one example. Bounded in time by its documented caps; never panics.
    ///
    /// # Errors
    /// Why there is no score.
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure>;
}

/// A [`Code`] with its description and mapping: an [`Evaluator`].
pub struct Coded {
    description: Description,
    identity: Identity,
    mapping: Mapping,
    code: Box<dyn Code>,
}

impl Coded {
    /// Joins them. The description is that of this configuration.
    pub fn new(description: Description, identity: Identity, mapping: Mapping, code: Box<dyn Code>) -> Self {
        Self { description, identity, mapping, code }
    }

    /// Judges one example, here and now.
    pub fn run(&self, example: &Example) -> Outcome {
        self.code.score(self.mapping.of(example)).into()
    }
}

impl std::fmt::Debug for Coded {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Coded").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Evaluator for Coded {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn evaluate<'a>(&'a self, batch: &'a [Example]) -> BoxStream<'a, (usize, Outcome)> {
        stream::iter(batch.iter().enumerate()).map(|(at, example)| (at, self.run(example))).boxed()
    }
}

/// Judges a batch and waits for all of it: one outcome for each example, in their order.
pub async fn collect(evaluator: &dyn Evaluator, batch: &[Example]) -> Vec<Outcome> {
    let mut outcomes: Vec<Option<Outcome>> = batch.iter().map(|_| None).collect();
    let mut missing = batch.len();
    let mut stream = evaluator.evaluate(batch);
    while missing > 0
        && let Some((at, outcome)) = stream.next().await
    {
        if let Some(place @ None) = outcomes.get_mut(at) {
            *place = Some(outcome);
            missing -= 1;
        }
    }
    let no_answer = || Failure::new(Class::PluginFault, "no answer for this example").into();
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(no_answer)).collect()
}
