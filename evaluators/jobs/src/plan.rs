//! What was made of a request: all that running it needs, kept in the job's row.
//!
//! Promise: a job goes on under the plan with which it was made, whatever becomes of the prompt, the templates and the configuration; an
//! evaluator of another version than planned fails its items rather than mix its scores with the others.

use emberd_evaluators_kit::{Direction, Kind, Spec};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::request::Source;

/// The form of a plan that this emberd writes and reads.
pub(crate) const FORM: u32 = 1;

/// A job's plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Which form this is.
    pub form: u32,
    /// Whose evaluation it is.
    pub prompt: Uuid,
    /// Where its targets come from.
    pub source: Source,
    /// The prompt run by a model, where it is.
    pub run: Option<Run>,
    /// Calls of models at the same time, in each emberd.
    pub concurrency: Option<u32>,
    /// The evaluators; the first is step 1.
    pub evaluators: Vec<Planned>,
}

/// How the prompt is run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its text, as it was when the job was made.
    pub content: String,
    /// The model.
    pub model: String,
    /// 0 to 2; the endpoint's own otherwise.
    pub temperature: Option<f64>,
    /// The longest answer.
    pub max_tokens: u32,
}

/// An evaluator of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// How it is built.
    pub spec: Spec,
    /// What it is built from.
    pub by: By,
    /// Its version.
    pub version: String,
    /// Its identity's digest: configuration, mapping, template.
    pub digest: String,
    /// A function, or a model's judgement.
    pub kind: Kind,
    /// What it gives.
    pub scores: Vec<PlannedScore>,
}

/// What an evaluator is built from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A built-in function.
    Code,
    /// A template, and a model that is asked.
    Judge {
        /// The model.
        model: String,
        /// The template as JSON, where it is not a shipped one.
        template: Option<String>,
    },
    /// A plugin.
    Plugin,
}

/// A score that an evaluator gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedScore {
    /// The evaluator's name for it.
    pub output: String,
    /// The name that it has in this job.
    pub name: String,
    /// Which way is better.
    pub direction: Direction,
    /// The least; none if open.
    pub min: Option<f64>,
    /// The greatest; none if open.
    pub max: Option<f64>,
}

impl Plan {
    /// Reads a job's plan.
    ///
    /// # Errors
    /// In one sentence: a later form, or a damaged one.
    pub fn read(plan: &Value) -> Result<Self, String> {
        match plan.get("form").and_then(Value::as_u64) {
            Some(form) if form == u64::from(FORM) => {}
            form => return Err(format!("the job's plan has form {form:?}, and this emberd knows {FORM}")),
        }
        Self::deserialize(plan).map_err(|error| format!("the job's plan cannot be read: {error}"))
    }

    /// The evaluator of a step from 1 on.
    pub fn evaluator(&self, step: i64) -> Option<&Planned> {
        self.evaluators.get(usize::try_from(step).ok()?.checked_sub(1)?)
    }

    /// The steps that there are: 0 where the prompt is run, and the evaluators from 1.
    pub fn steps(&self) -> impl Iterator<Item = i64> {
        let first = if self.run.is_some() { 0 } else { 1 };
        first..=self.evaluators.len() as i64
    }

    /// The model that a step asks, if it asks one.
    pub fn model(&self, step: i64) -> Option<&str> {
        if step == 0 {
            return self.run.as_ref().map(|run| run.model.as_str());
        }
        match &self.evaluator(step)?.by {
            By::Judge { model, .. } => Some(model),
            By::Code | By::Plugin => None,
        }
    }
}
