//! A dataset job in Phoenix: its dataset, an experiment, a run of each example, and the runs' evaluations.
//!
//! Promise: cut off anywhere, it goes on where Phoenix's own lists say that something is missing; the experiment is found again by
//! `emberd_job` in its metadata. Phoenix's id goes into the evaluation's row when all is there.
//! One that is deleted in Phoenix meanwhile, alone or with its dataset, is made anew, as often as strange answers are borne; then it is refused
//! with the reason, and the evaluation's row has no id of what is gone.
//! Which of Phoenix's datasets is ours: `emberd_phoenix::own`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use emberd_evaluators_kit::{Example, Kind};
use emberd_model::UnixNanos;
use emberd_phoenix::datasets::Item;
use emberd_phoenix::experiments::{Annotator, Evaluation, Experiment, Judgement, New, Run};
use emberd_store::Store;
use emberd_store::jobs::{DatasetType, Job, Outgoing, Phase, ResultFilter, RunTarget, StoredResult, Viewer};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::examples::item;
use super::{EXPERIMENT, Inner, STRIKES_MAX, Trouble};
use crate::job::in_a_while;
use crate::plan::Plan;
use crate::price;
use crate::request::Source;

/// Targets in a page.
const PAGE: u32 = 500;
/// By what an experiment is found again.
const JOB: &str = "emberd_job";

/// A job as it stands in the outbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Body {
    job: Uuid,
    dataset: Uuid,
    /// The dataset's name when the job was closed.
    name: String,
    /// Its type.
    kind: String,
}

/// Puts a dataset job into the outbox. Called before the job is closed, so that no crash can lose it; it is told when the job is closed.
pub(crate) async fn enqueue(store: &Store, job: &Job, now: UnixNanos) -> Result<(), emberd_store::Error> {
    let Ok(Plan { source: Source::Dataset { id }, .. }) = Plan::read(&job.plan) else { return Ok(()) };
    let dataset = store.dataset(Viewer { user: Uuid::nil(), is_admin: true }, id).await?;
    let (name, kind) = dataset
        .map_or_else(|| (format!("emberd dataset {id}"), DatasetType::Custom), |dataset| (dataset.name, dataset.kind));
    let body = Body { job: job.id, dataset: id, name, kind: kind.as_str().to_owned() };
    store.put_outgoing(EXPERIMENT, &job.id.to_string(), serde_json::to_value(body).unwrap_or_default(), now).await
}

/// What Phoenix holds of an experiment.
struct There {
    experiment: Experiment,
    /// Examples that lack their run, or whose run failed.
    lacking: HashSet<String>,
    /// Runs by Phoenix's id of their example.
    runs: HashMap<String, String>,
    /// Names of evaluations that runs lack.
    unjudged: HashMap<String, HashSet<String>>,
}

impl Inner {
    /// Tells an experiment, for as long as its row is ours.
    pub(super) async fn experiment(&self, row: Outgoing) {
        let mut made = None;
        let done = tokio::select! {
            done = self.tell(&row, &mut made) => done,
            () = self.hold(&row) => Err(Trouble::Lost),
        };
        let settled = match done {
            Ok(()) => {
                self.forget(&row);
                self.store.told(vec![row]).await.map(drop).map_err(Trouble::from)
            }
            Err(trouble) => self.untold(&row, trouble, made.as_deref()).await,
        };
        if let Err(trouble) = settled {
            tracing::warn!(?trouble, "what became of an experiment could not be written down: it is told again");
        }
    }

    /// Ends when the row is another's, or has a newer version.
    async fn hold(&self, row: &Outgoing) {
        loop {
            tokio::time::sleep(self.config.lease / 3).await;
            let until = in_a_while(self.clock.now(), self.config.lease);
            if matches!(self.store.postpone(row, until).await, Ok(false)) {
                return;
            }
        }
    }

    async fn untold(&self, row: &Outgoing, trouble: Trouble, made: Option<&str>) -> Result<(), Trouble> {
        match trouble {
            Trouble::Refused(why) => self.refuse_experiment(row, &why, made).await,
            Trouble::Strange(why) => {
                let strikes = self.strike(row);
                if strikes >= STRIKES_MAX {
                    return self.refuse_experiment(row, &why, made).await;
                }
                tracing::debug!(why, strikes, "phoenix answers strangely");
                self.later(row, self.pause(strikes)).await
            }
            Trouble::Away(why) => {
                self.counting().away += 1;
                tracing::debug!(why, "phoenix is away");
                let tries = u32::try_from(row.attempts).unwrap_or(u32::MAX);
                self.later(row, self.pause(tries)).await
            }
            Trouble::NotYet => self.later(row, self.config.backoff).await,
            Trouble::Lost => Ok(()),
            Trouble::Store(error) => {
                tracing::debug!(%error, "the database is away");
                self.later(row, self.config.backoff).await
            }
        }
    }

    /// Nothing half-made stays in Phoenix, and the evaluation's row says why nothing is there.
    async fn refuse_experiment(&self, row: &Outgoing, why: &str, made: Option<&str>) -> Result<(), Trouble> {
        if let Some(id) = made
            && let Err(error) = self.client.delete_experiment(id).await
            && let trouble @ Trouble::Away(_) = Trouble::from(error)
        {
            tracing::debug!(?trouble, "phoenix is away");
            return self.later(row, self.config.backoff).await;
        }
        if let Ok(job) = row.key.parse::<Uuid>() {
            if let Some(evaluation) = self.store.evaluation(job).await?
                && made == Some(evaluation.phoenix_eval_id.as_str())
            {
                let local = format!("local:{job}");
                self.store.set_phoenix_eval_id(job, &evaluation.phoenix_eval_id, &local, self.clock.now()).await?;
            }
            let note = format!("phoenix refuses the experiment: {why}");
            self.store.note_evaluation(job, &note, self.clock.now()).await?;
        }
        self.refuse(row, why).await
    }

    async fn tell(&self, row: &Outgoing, made: &mut Option<String>) -> Result<(), Trouble> {
        let unreadable = |_| Trouble::Refused("it cannot be read".to_owned());
        let body = Body::deserialize(&row.body).map_err(unreadable)?;
        let (job, evaluation) = (self.store.job(body.job).await?, self.store.evaluation(body.job).await?);
        let (Some(job), Some(evaluation)) = (job, evaluation) else { return Ok(()) };
        if evaluation.status == "cancelled" {
            return Ok(());
        }
        if job.phase != Phase::Closed {
            return Err(Trouble::NotYet);
        }
        let plan = Plan::read(&job.plan).map_err(Trouble::Refused)?;
        let kind = DatasetType::parse(&body.kind).unwrap_or(DatasetType::Custom);
        self.describe(&plan.evaluators).await;
        let (dataset, version) = self.dataset(&body, kind).await?;
        let there = self.find(&body, &dataset, &version, &evaluation, &plan).await?;
        *made = Some(there.experiment.id.clone());
        let examples = self.client.dataset_examples(&dataset, Some(&version)).await?.examples;
        let nodes = examples.into_iter().map(|stored| (stored.item.id, stored.node_id)).collect();
        self.runs(&job, &plan, &there, nodes).await?;
        let (local, id) = (&evaluation.phoenix_eval_id, &there.experiment.id);
        if local != id {
            self.store.set_phoenix_eval_id(body.job, local, id, self.clock.now()).await?;
        }
        self.counting().experiments += 1;
        Ok(())
    }

    /// Writes what was judged as a version of the dataset: the dataset's id, and the version's.
    async fn dataset(&self, body: &Body, kind: DatasetType) -> Result<(String, String), Trouble> {
        let mut items: Vec<Item> = Vec::new();
        let mut from = 0;
        loop {
            let page = self.store.targets(body.job, from, PAGE).await?;
            let Some(last) = page.last() else { break };
            from = last.target.nr + 1;
            items.extend(page.iter().map(|one| item(kind, &one.target)));
        }
        let (_, done) = self.client.upload_own_dataset(&body.dataset, &body.name, &items).await?;
        Ok((done.dataset_id, done.version_id))
    }

    /// The job's experiment, made if there is none, and what it lacks.
    async fn find(
        &self,
        body: &Body,
        dataset: &str,
        version: &str,
        evaluation: &emberd_store::jobs::Evaluation,
        plan: &Plan,
    ) -> Result<There, Trouble> {
        let job = body.job.to_string();
        let known = self.client.experiments(dataset).await?;
        let known = known.into_iter().find(|known| known.metadata.get(JOB).and_then(Value::as_str) == Some(&job));
        let is_new = known.is_none();
        let experiment = match known {
            Some(known) => known,
            None => {
                let evaluators: Vec<_> = plan
                    .evaluators
                    .iter()
                    .map(|planned| json!({"name": planned.spec.name, "version": planned.version}))
                    .collect();
                let metadata = json!({
                    JOB: job,
                    "emberd_prompt": evaluation.prompt_id,
                    "model": plan.run.as_ref().map(|run| &run.model),
                    "evaluators": evaluators,
                });
                let Value::Object(metadata) = metadata else { return Err(Trouble::Lost) };
                let description = evaluation.description.as_deref();
                let name = &evaluation.name;
                let new = New { name, description, metadata, version_id: Some(version), repetitions: 1 };
                self.client.create_experiment(dataset, &new).await?
            }
        };
        let id = &experiment.id;
        let lacking = self.client.incomplete_runs(id).await?.into_iter().map(|one| one.example_node_id).collect();
        let (mut runs, mut unjudged) = (HashMap::new(), HashMap::new());
        if !is_new {
            for run in self.client.runs(id).await? {
                runs.insert(run.example_node_id, run.id);
            }
            let names: Vec<&str> =
                plan.evaluators.iter().flat_map(|planned| &planned.scores).map(|score| score.name.as_str()).collect();
            for one in self.client.incomplete_evaluations(id, &names).await? {
                unjudged.insert(one.run.id, one.names.into_iter().collect());
            }
        }
        Ok(There { experiment, lacking, runs, unjudged })
    }

    /// Posts what is missing, target by target.
    async fn runs(&self, job: &Job, plan: &Plan, there: &There, nodes: HashMap<String, String>) -> Result<(), Trouble> {
        let mut results = Results { cursor: Some(None), page: Vec::new().into_iter().peekable() };
        let mut from = 0;
        loop {
            let page = self.store.targets(job.id, from, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            from = last.target.nr + 1;
            let mut work = Vec::with_capacity(page.len());
            for target in page {
                let found = results.of(&self.store, job.id, target.target.nr).await?;
                work.push((target, found));
            }
            let posts = work.into_iter().map(|(target, found)| self.run(plan, there, &nodes, target, found));
            let mut posts = stream::iter(posts).buffer_unordered(self.config.concurrency.max(1));
            while let Some(done) = posts.next().await {
                done?;
            }
        }
    }

    async fn run(
        &self,
        plan: &Plan,
        there: &There,
        nodes: &HashMap<String, String>,
        target: RunTarget,
        results: Vec<StoredResult>,
    ) -> Result<(), Trouble> {
        let Some(node) = nodes.get(&target.target.target) else {
            return Err(Trouble::Strange(format!("phoenix lost the example {:?}", target.target.target)));
        };
        let known = there.runs.get(node).filter(|_| !there.lacking.contains(node));
        let run = match known {
            Some(run) => run.clone(),
            None => self.client.post_run(&there.experiment.id, &run_of(plan, node, target, &results)).await?.id,
        };
        for result in results.iter().filter(|result| result.step > 0) {
            // A run that was just posted has none; of others, Phoenix says which are missing or failed.
            let is_wanted =
                known.is_none() || there.unjudged.get(&run).is_some_and(|names| names.contains(&result.scored.name));
            if is_wanted {
                self.client.post_evaluation(&evaluation_of(plan, &run, result)).await?;
            }
        }
        Ok(())
    }
}

/// Results by target, read in their order, page by page.
struct Results {
    /// Where the next page begins; none when there is none.
    cursor: Option<Option<String>>,
    page: std::iter::Peekable<std::vec::IntoIter<StoredResult>>,
}

impl Results {
    /// Those of a target; to be asked in order.
    async fn of(&mut self, store: &Store, job: Uuid, nr: i64) -> Result<Vec<StoredResult>, Trouble> {
        let mut found = Vec::new();
        loop {
            while let Some(result) = self.page.next_if(|result| result.nr <= nr) {
                if result.nr == nr {
                    found.push(result);
                }
            }
            if self.page.peek().is_some() {
                return Ok(found);
            }
            let Some(cursor) = self.cursor.take() else { return Ok(found) };
            let page = store.results(job, &ResultFilter::default(), cursor.as_deref(), 10 * PAGE).await?;
            self.cursor = page.next_cursor.map(Some);
            self.page = page.data.into_iter().peekable();
        }
    }
}

fn begin(end: UnixNanos, took: Duration) -> UnixNanos {
    UnixNanos(end.0.saturating_sub(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)))
}

fn run_of(plan: &Plan, node: &str, target: RunTarget, results: &[StoredResult]) -> Run {
    let own = results.iter().find(|result| result.step == 0).filter(|_| plan.run.is_some());
    let (end, took) = match own {
        Some(run) => (run.at, run.scored.latency),
        // What was recorded took no time here.
        None => (results.iter().map(|result| result.at).min().unwrap_or_default(), Duration::ZERO),
    };
    let error = own.and_then(|run| run.scored.outcome.as_ref().err());
    let error = error.map(|failure| format!("{}: {}", failure.class, failure.message));
    let output = match target.output {
        Some(Value::Object(mut run)) => run.remove("output").unwrap_or(Value::Null),
        _ if plan.run.is_some() => Value::Null,
        _ => Example::deserialize(&target.target.body).unwrap_or_default().output,
    };
    Run { example_node_id: node.to_owned(), repetition: 1, output, error, start: begin(end, took), end, trace: None }
}

fn evaluation_of(plan: &Plan, run: &str, result: &StoredResult) -> Evaluation {
    let scored = &result.scored;
    let kind = plan.evaluator(result.step).map(|planned| planned.kind);
    let outcome = match &scored.outcome {
        Ok(score) => {
            Ok(Judgement { label: score.label.clone(), score: score.score, explanation: score.explanation.clone() })
        }
        Err(failure) => Err(format!("{}: {}", failure.class, failure.message)),
    };
    let mut metadata = scored.metadata.as_object().cloned().unwrap_or_default();
    metadata.insert("emberd".to_owned(), about(&scored.version, scored));
    Evaluation {
        run_id: run.to_owned(),
        name: scored.name.clone(),
        annotator: if kind == Some(Kind::Llm) { Annotator::Llm } else { Annotator::Code },
        outcome,
        metadata,
        start: begin(result.at, scored.latency),
        end: result.at,
        trace: None,
    }
}

/// What emberd knows beside the score.
fn about(version: &str, scored: &emberd_store::jobs::Scored) -> Value {
    let mut about = Map::new();
    about.insert("version".to_owned(), json!(version));
    about.insert("direction".to_owned(), json!(scored.direction.as_str()));
    about.insert("cost_usd".to_owned(), json!(price::dollars(scored.cost)));
    about.insert("cached".to_owned(), json!(scored.cached));
    Value::Object(about)
}
