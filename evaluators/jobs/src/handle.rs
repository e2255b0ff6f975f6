//! The engine's way in: for the API and the command line.

use std::sync::Arc;

use emberd_evaluators_kit::Description;
use emberd_store::Error;
use emberd_store::jobs::{CreateJobError, Created, NewJob, Viewer};
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::check::{CheckError, check};
use crate::counters::Counters;
use crate::engine::Shared;
use crate::events::{Event, Share};
use crate::job::mark_retried;
use crate::plan::Plan;
use crate::quote::{Quote, quote};
use crate::request::{Fault, Source};

/// A way to the engine; all clones are the same.
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Shared>);

/// A job was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// All that is wrong with the request.
    #[error("the request has faults")]
    Invalid(Vec<Fault>),
    /// The creator has no profile.
    #[error("no such profile")]
    NoSuchProfile,
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<CheckError> for CreateError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Invalid(faults) => Self::Invalid(faults),
            CheckError::Store(error) => Self::Store(error),
        }
    }
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Every evaluator that a job may name now: built in, shipped, and those of plugins that are ready.
    #[must_use]
    pub fn evaluators(&self) -> Vec<Description> {
        let mut all = emberd_evaluators_kit::descriptions();
        all.extend(self.0.hosts.descriptions());
        all
    }

    /// What would be made of a request; nothing is written.
    ///
    /// # Errors
    /// All that is wrong with it, each with its path.
    pub async fn check(&self, request: &Value, viewer: Viewer) -> Result<Plan, CheckError> {
        Ok(check(&self.0, request, viewer).await?.plan)
    }

    /// What a request would take; nothing is written.
    ///
    /// # Errors
    /// All that is wrong with it, each with its path.
    pub async fn quote(&self, request: &Value, viewer: Viewer) -> Result<Quote, CheckError> {
        let checked = check(&self.0, request, viewer).await?;
        Ok(quote(&self.0, &checked, viewer).await?)
    }

    /// Makes a job, which begins by itself. Asked again by the same creator with the same key, it is the first one.
    ///
    /// # Errors
    /// All that is wrong with the request.
    pub async fn create(&self, request: &Value, key: Option<String>, creator: Viewer) -> Result<Created, CreateError> {
        let checked = check(&self.0, request, creator).await?;
        let request = checked.request;
        let new = NewJob {
            id: Uuid::new_v4(),
            prompt: request.prompt,
            dataset: match &request.source {
                Source::Dataset { id } => Some(*id),
                Source::Traces(_) => None,
            },
            subset: None,
            name: request.name,
            description: request.description,
            config: request.config,
            created_by: creator.user,
            plan: serde_json::to_value(&checked.plan).unwrap_or_default(),
            budget: request.budget,
            idempotency_key: key,
            now: self.0.now(),
        };
        let gone = |path: &str, what: &str| CreateError::Invalid(vec![Fault::new(path, what)]);
        let created = self.0.store.create_job(new).await.map_err(|error| match error {
            CreateJobError::NoSuchPrompt => gone("promptId", "no such prompt"),
            CreateJobError::NoSuchDataset => gone("datasetId", "no such dataset"),
            CreateJobError::NoSuchProfile => CreateError::NoSuchProfile,
            CreateJobError::Database(error) => CreateError::Store(error),
        })?;
        if created.is_new {
            self.0.counting.now().created += 1;
            self.0.events.created.notify_one();
            self.0.events.tell(&self.0, created.id).await;
        }
        Ok(created)
    }

    /// Cancels a job that is not over: nothing more is taken or called; calls in flight end. False: it was over, or is not there.
    ///
    /// # Errors
    /// The database's.
    pub async fn cancel(&self, job: Uuid) -> Result<bool, Error> {
        let is_done = self.0.store.cancel_job(job, self.0.now()).await?;
        if is_done {
            self.0.counting.now().cancelled += 1;
            self.0.wake.notify_one();
            self.0.events.tell(&self.0, job).await;
        }
        Ok(is_done)
    }

    /// Tries again what failed, of these error classes or (with none) of all. Answers without a verdict do not count any more: models are
    /// asked anew. Gives how many items.
    ///
    /// # Errors
    /// The database's.
    pub async fn retry(&self, job: Uuid, classes: &[String]) -> Result<u64, Error> {
        if self.0.store.job(job).await?.is_none() {
            return Ok(0);
        }
        mark_retried(&self.0, job).await?;
        let items = self.0.store.retry_failed(job, classes.to_vec(), self.0.now()).await?;
        if items > 0 {
            self.0.wake.notify_one();
            self.0.events.tell(&self.0, job).await;
        }
        Ok(items)
    }

    /// How far a job is; none where there is no such job.
    ///
    /// # Errors
    /// The database's.
    pub async fn progress(&self, job: Uuid) -> Result<Option<Share>, Error> {
        if self.0.store.job(job).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.0.store.progress(job).await?.into()))
    }

    /// How all jobs go on from now on. Who lags behind skips the oldest events. Works while an engine runs.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.events.subscribe()
    }

    /// Tells those who listen here how far a job is: it moved on another emberd, and may have been over before this one knew of it.
    pub async fn tell(&self, job: Uuid) {
        self.0.events.tell(&self.0, job).await;
    }

    /// What this engine made and closed.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let running = self.0.open.borrow().len() as u64;
        Counters { running, ..self.0.counting.now().clone() }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Handle").finish_non_exhaustive()
    }
}
