//! Phoenix's experiments: runs over a dataset's version, and evaluations of the runs.
//!
//! Promise: each post may be repeated. A run that is there already keeps its id, and that id is what the caller gets; an evaluation
//! is kept by (run, name), the latest wins. So what a cut left undone is what [`Client::incomplete_runs`] and
//! [`Client::incomplete_evaluations`] list, and nothing is doubled. A run or evaluation that failed is listed there too.
//! On the wire: `/v1/experiments/..` and `/v1/experiment_evaluations`; times in RFC 3339, of which Phoenix keeps microseconds.
//! Quirks:   examples are named by Phoenix's own id, never by ours; a run or an evaluation of something that Phoenix does not have is
//! answered 500, not 404 ([`client::Error::Answer`](crate::client::Error::Answer)).
//! Kept by: `tests/evaluation.rs`, against the real Phoenix.

use emberd_model::{TraceId, UnixNanos};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::Client;
use crate::rest::{Data, Error, Size, read};
use crate::text;

/// Who judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Annotator {
    /// A judging model.
    Llm,
    /// A function.
    Code,
    /// A person.
    Human,
}

/// A judgement. All three may be missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// A word out of few.
    pub label: Option<String>,
    /// A finite number.
    pub score: Option<f64>,
    /// Why.
    pub explanation: Option<String>,
}

impl Judgement {
    /// JSON has no NaN, and Phoenix would keep it as no score at all.
    pub(crate) fn check(&self, name: &str) -> Result<(), Error> {
        match self.score {
            Some(score) if !score.is_finite() => Err(Error::Unfit { what: format!("a score of {score} in {name}") }),
            _ => Ok(()),
        }
    }
}

/// An experiment to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct New<'a> {
    /// Its name; Phoenix takes one twice.
    pub name: &'a str,
    /// What it is, in words.
    pub description: Option<&'a str>,
    /// Whatever else is known.
    pub metadata: Map<String, Value>,
    /// The version whose examples are run; the newest, if none.
    pub version_id: Option<&'a str>,
    /// Runs of each example, from 1.
    pub repetitions: u32,
}

/// An experiment.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Experiment {
    /// Phoenix's id.
    pub id: String,
    /// Its dataset.
    pub dataset_id: String,
    /// The version whose examples are run.
    pub dataset_version_id: String,
    /// Its name.
    pub name: String,
    /// Where the traces of its runs are to go.
    pub project_name: Option<String>,
    /// Whatever else is known.
    pub metadata: Map<String, Value>,
    /// Runs of each example.
    pub repetitions: u32,
    /// Examples in it.
    pub example_count: u64,
    /// Runs that gave an output.
    pub successful_run_count: u64,
    /// Runs that failed.
    pub failed_run_count: u64,
    /// Runs that are still to come.
    pub missing_run_count: u64,
}

/// A run to be posted.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Phoenix's own id of the example: [`Stored::node_id`](crate::datasets::Stored::node_id).
    pub example_node_id: String,
    /// Which repetition, from 1.
    pub repetition: u32,
    /// What came out.
    pub output: Value,
    /// Why nothing did.
    pub error: Option<String>,
    /// When it began.
    pub start: UnixNanos,
    /// When it ended.
    pub end: UnixNanos,
    /// The trace of it.
    pub trace: Option<TraceId>,
}

/// What became of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Phoenix's id of the run or evaluation.
    pub id: String,
    /// Whether a successful run was there already; it was left as it is.
    pub was_there: bool,
    /// NULs taken out before sending.
    pub nuls_removed: usize,
}

/// A run, read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct StoredRun {
    /// Phoenix's id.
    pub id: String,
    /// Phoenix's own id of the example.
    #[serde(rename = "dataset_example_id")]
    pub example_node_id: String,
    /// Which repetition, from 1.
    #[serde(rename = "repetition_number")]
    pub repetition: u32,
    /// What came out.
    pub output: Value,
    /// Why nothing did.
    pub error: Option<String>,
}

/// An example that lacks runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncompleteRun {
    /// Phoenix's own id of the example.
    pub example_node_id: String,
    /// The repetitions that are missing or failed.
    pub repetitions: Vec<u32>,
}

/// A successful run that lacks evaluations.
#[derive(Clone, Debug, PartialEq)]
pub struct IncompleteEvaluation {
    /// The run.
    pub run: StoredRun,
    /// The evaluations that are missing or failed.
    pub names: Vec<String>,
}

/// An evaluation to be posted.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Phoenix's id of the run.
    pub run_id: String,
    /// The evaluator; with the run, the key.
    pub name: String,
    /// Who judges.
    pub annotator: Annotator,
    /// The judgement, or why there is none: never both.
    pub outcome: Result<Judgement, String>,
    /// Whatever else is known.
    pub metadata: Map<String, Value>,
    /// When it began.
    pub start: UnixNanos,
    /// When it ended.
    pub end: UnixNanos,
    /// The trace of it.
    pub trace: Option<TraceId>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[derive(Deserialize)]
struct ExampleRef {
    node_id: String,
}

#[derive(Deserialize)]
struct LackingRuns {
    dataset_example: ExampleRef,
    repetition_numbers: Vec<u32>,
}

#[derive(Deserialize)]
struct LackingEvaluations {
    experiment_run: StoredRun,
    evaluation_names: Vec<String>,
}

impl Client {
    /// Makes an experiment. Repeated, it makes another: look through [`Client::experiments`] first.
    pub async fn create_experiment(&self, dataset_id: &str, new: &New<'_>) -> Result<Experiment, Error> {
        let mut request = json!({
            "name": new.name,
            "description": new.description,
            "metadata": new.metadata,
            "version_id": new.version_id,
            "repetitions": new.repetitions,
        });
        text::remove_nuls(&mut request);
        let url = self.url(&["v1", "datasets", dataset_id, "experiments"], &[])?;
        let answer: Data<Experiment> = self.ask(Method::POST, url, Some(&request), Size::Small).await?;
        Ok(answer.data)
    }

    /// An experiment by id.
    pub async fn experiment(&self, id: &str) -> Result<Experiment, Error> {
        let url = self.url(&["v1", "experiments", id], &[])?;
        let answer: Data<Experiment> = self.ask(Method::GET, url, None, Size::Small).await?;
        Ok(answer.data)
    }

    /// The experiments on a dataset, newest first.
    pub async fn experiments(&self, dataset_id: &str) -> Result<Vec<Experiment>, Error> {
        self.list(&["v1", "datasets", dataset_id, "experiments"], &[]).await
    }

    /// Deletes an experiment, with its runs and their evaluations.
    pub async fn delete_experiment(&self, id: &str) -> Result<(), Error> {
        let url = self.url(&["v1", "experiments", id], &[])?;
        self.call(Method::DELETE, url, None, Size::Small).await.map(drop)
    }

    /// Posts a run. Where a successful one of this example and repetition is there already, it stays, and its id comes back.
    pub async fn post_run(&self, experiment_id: &str, run: &Run) -> Result<Posted, Error> {
        let mut request = json!({
            "dataset_example_id": run.example_node_id,
            "output": run.output,
            "repetition_number": run.repetition,
            "start_time": moment(run.start)?,
            "end_time": moment(run.end)?,
            "trace_id": run.trace.map(|trace| trace.to_string()),
            "error": run.error,
        });
        let nuls_removed = text::remove_nuls(&mut request);
        let url = self.url(&["v1", "experiments", experiment_id, "runs"], &[])?;
        match self.ask::<Data<Id>>(Method::POST, url, Some(&request), Size::Small).await {
            Ok(answer) => Ok(Posted { id: answer.data.id, was_there: false, nuls_removed }),
            Err(Error::Conflict { said }) => {
                let runs = self.runs(experiment_id).await?;
                let same = |stored: &StoredRun| {
                    stored.example_node_id == run.example_node_id && stored.repetition == run.repetition
                };
                match runs.into_iter().find(same) {
                    Some(stored) => Ok(Posted { id: stored.id, was_there: true, nuls_removed: 0 }),
                    None => Err(Error::Conflict { said }),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The runs of an experiment, newest first.
    pub async fn runs(&self, experiment_id: &str) -> Result<Vec<StoredRun>, Error> {
        self.list(&["v1", "experiments", experiment_id, "runs"], &[]).await
    }

    /// What is still to be run: missing, or failed.
    pub async fn incomplete_runs(&self, experiment_id: &str) -> Result<Vec<IncompleteRun>, Error> {
        let lacking: Vec<LackingRuns> =
            self.list(&["v1", "experiments", experiment_id, "incomplete-runs"], &[]).await?;
        let of = |lacking: LackingRuns| IncompleteRun {
            example_node_id: lacking.dataset_example.node_id,
            repetitions: lacking.repetition_numbers,
        };
        Ok(lacking.into_iter().map(of).collect())
    }

    /// Which successful runs lack which of these evaluations: missing, or failed.
    pub async fn incomplete_evaluations(
        &self,
        experiment_id: &str,
        names: &[&str],
    ) -> Result<Vec<IncompleteEvaluation>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<_> = names.iter().map(|name| ("evaluation_name", *name)).collect();
        let lacking: Vec<LackingEvaluations> =
            self.list(&["v1", "experiments", experiment_id, "incomplete-evaluations"], &names).await?;
        let of = |lacking: LackingEvaluations| IncompleteEvaluation {
            run: lacking.experiment_run,
            names: lacking.evaluation_names,
        };
        Ok(lacking.into_iter().map(of).collect())
    }

    /// Posts an evaluation of a run; the latest of a name wins, whole.
    pub async fn post_evaluation(&self, evaluation: &Evaluation) -> Result<Posted, Error> {
        let (result, error) = match &evaluation.outcome {
            Ok(judgement) => (Some(judgement), None),
            // An empty text would count as no error, and then neither is given.
            Err(error) if error.is_empty() => (None, Some("it failed")),
            Err(error) => (None, Some(error.as_str())),
        };
        if let Some(judgement) = result {
            judgement.check(&evaluation.name)?;
        }
        let mut request = json!({
            "experiment_run_id": evaluation.run_id,
            "name": evaluation.name,
            "annotator_kind": evaluation.annotator,
            "start_time": moment(evaluation.start)?,
            "end_time": moment(evaluation.end)?,
            "result": result,
            "error": error,
            "metadata": evaluation.metadata,
            "trace_id": evaluation.trace.map(|trace| trace.to_string()),
        });
        let nuls_removed = text::remove_nuls(&mut request);
        let url = self.url(&["v1", "experiment_evaluations"], &[])?;
        let answer: Data<Id> = self.ask(Method::POST, url, Some(&request), Size::Small).await?;
        Ok(Posted { id: answer.data.id, was_there: false, nuls_removed })
    }

    /// All runs with their evaluations, as Phoenix exports them: example_id, output, reference_output, annotations and so on. None
    /// as long as there is no run.
    pub async fn experiment_export(&self, experiment_id: &str) -> Result<Vec<Value>, Error> {
        let url = self.url(&["v1", "experiments", experiment_id, "json"], &[])?;
        match self.call(Method::GET, url, None, Size::Whole).await {
            Ok(body) => read(&body),
            // The same answer as for an experiment that is not there.
            Err(Error::NotFound { .. }) if self.experiment(experiment_id).await.is_ok() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn moment(at: UnixNanos) -> Result<String, Error> {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(at.0.into()).ok();
    let moment = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    moment.ok_or_else(|| Error::Unfit { what: format!("the time {}", at.0) })
}
