//! Rules and reasons, for the API and the command line.

use std::sync::atomic::Ordering;

use emberd_model::TraceId;
use emberd_store::Error;
use emberd_store::jobs::{Decision, PutRuleError, Rule, TraceScore, Viewer};
use serde_json::Value;
use uuid::Uuid;

use super::rule::check;
use crate::check::CheckError;
use crate::handle::Handle;
use crate::request::Fault;

/// A rule was not made.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// All that is wrong with it.
    #[error("the rule has faults")]
    Invalid(Vec<Fault>),
    /// The creator has no profile.
    #[error("no such profile")]
    NoSuchProfile,
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What a rule decided of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Why {
    /// The rule's name.
    pub rule: String,
    /// What, and why.
    pub decision: Decision,
    /// What it found.
    pub scores: Vec<TraceScore>,
}

impl Handle {
    /// All rules, by name. Of each `config`, the part `config` is as it was given, and `plan` what was made of it.
    ///
    /// # Errors
    /// The database's.
    pub async fn rules(&self) -> Result<Vec<Rule>, Error> {
        self.0.store.rules().await
    }

    /// What would be wrong with a rule; nothing is written.
    ///
    /// # Errors
    /// All that is wrong with it, each with its path.
    pub async fn check_rule(&self, rule: &Value, viewer: Viewer) -> Result<(), CheckError> {
        check(&self.0, rule, viewer).await.map(drop)
    }

    /// Makes a rule, or gives the one of its name other contents. It counts from the next trace on.
    ///
    /// # Errors
    /// All that is wrong with it, each with its path.
    pub async fn put_rule(&self, rule: &Value, creator: Viewer) -> Result<Rule, RuleError> {
        let new = check(&self.0, rule, creator).await.map_err(|error| match error {
            CheckError::Invalid(faults) => RuleError::Invalid(faults),
            CheckError::Store(error) => RuleError::Store(error),
        })?;
        let put = self.0.store.put_rule(new, self.0.now()).await.map_err(|error| match error {
            PutRuleError::NoSuchProfile => RuleError::NoSuchProfile,
            PutRuleError::Database(error) => RuleError::Store(error),
        })?;
        self.changed();
        Ok(put)
    }

    /// Switches a rule on or off. False: there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn enable_rule(&self, rule: Uuid, is_enabled: bool) -> Result<bool, Error> {
        let done = self.0.store.enable_rule(rule, is_enabled).await?;
        self.changed();
        Ok(done)
    }

    /// Deletes a rule with its decisions and scores; what Phoenix was told stays there. False: there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete_rule(&self, rule: Uuid) -> Result<bool, Error> {
        let done = self.0.store.delete_rule(rule).await?;
        self.changed();
        Ok(done)
    }

    /// What each rule decided of a trace, and what it found. Of a rule that is not among them, the trace was never seen by it.
    ///
    /// # Errors
    /// The database's.
    pub async fn why(&self, trace: TraceId) -> Result<Vec<Why>, Error> {
        let store = &self.0.store;
        let (decisions, scores) = (store.decisions_of(trace).await?, store.trace_scores(trace).await?);
        let rules = store.rules().await?;
        let why = |decision: Decision| {
            let name = rules.iter().find(|rule| rule.id == decision.rule)?.name.clone();
            let scores = scores.iter().filter(|score| score.rule == decision.rule).cloned().collect();
            Some(Why { rule: name, decision, scores })
        };
        Ok(decisions.into_iter().filter_map(why).collect())
    }

    fn changed(&self) {
        self.0.rules_changed.store(true, Ordering::Release);
    }
}
