//! From a request to a plan: everything is looked up and built once, before anything is written or paid.

use std::time::Duration;

use emberd_store::Moment;
use emberd_store::jobs::Viewer;
use serde_json::Value;

use crate::engine::Shared;
use crate::evaluators::{self, Live, own_model};
use crate::plan::{By, FORM, Plan, Planned, PlannedScore, Run};
use crate::request::{Fault, Request, Source};

/// How long a plugin may take to be ready while somebody waits for the answer.
const PLUGIN_WAIT: Duration = Duration::from_secs(5);
/// The longest prompt that is run.
const CONTENT_BYTES_MAX: usize = 256 << 10;
/// The longest answer of a run, where a job does not say.
pub(crate) const RUN_TOKENS: u32 = 1_024;

/// A request that cannot become a job.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// All that is wrong with it.
    #[error("{} faults, the first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Invalid(Vec<Fault>),
    /// It could not be looked up.
    #[error(transparent)]
    Store(#[from] emberd_store::Error),
}

/// A request with what was made of it.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) request: Request,
    pub(crate) plan: Plan,
    pub(crate) live: Vec<Live>,
    /// Models that a step asks and that have no price.
    pub(crate) unpriced: Vec<String>,
}

pub(crate) async fn check(shared: &Shared, value: &Value, viewer: Viewer) -> Result<Checked, CheckError> {
    let request = Request::parse(value).map_err(CheckError::Invalid)?;
    let mut faults = Vec::new();
    let run = run(shared, &request, &mut faults).await?;
    if let Source::Dataset { id } = &request.source
        && shared.store.dataset(viewer, *id).await?.is_none()
    {
        faults.push(Fault::new("datasetId", "no such dataset"));
    }
    let (mut planned, mut live) = (Vec::new(), Vec::new());
    for (at, spec) in request.evaluators.iter().enumerate() {
        let path = format!("config.evaluators[{at}]");
        match evaluators::find(spec, &shared.hosts, &shared.store, viewer, PLUGIN_WAIT).await? {
            Ok((built, template)) => {
                if let Some(plan) = plan_one(shared, &request, &built, template, at, &mut faults) {
                    named_once(&path, &plan, &planned, &mut faults);
                    planned.push(plan);
                    live.push(built);
                }
            }
            Err(unbuilt) => faults.push(Fault::new(format!("{path}{}", unbuilt.place), unbuilt.message)),
        }
    }
    let source = fixed(request.source.clone(), shared.now());
    let plan =
        Plan { form: FORM, prompt: request.prompt, source, run, concurrency: request.concurrency, evaluators: planned };
    let mut unpriced: Vec<String> = Vec::new();
    for (step, model) in plan.steps().filter_map(|step| Some((step, plan.model(step)?))) {
        if shared.config.prices.of(model).is_some() || unpriced.iter().any(|known| known == model) {
            continue;
        }
        if request.budget.is_some() {
            let path = if step == 0 { "config.model".to_owned() } else { format!("config.evaluators[{}]", step - 1) };
            faults.push(Fault::new(path, format!("there is a budget, and the price of {model:?} is not known")));
        }
        unpriced.push(model.to_owned());
    }
    if faults.is_empty() { Ok(Checked { request, plan, live, unpriced }) } else { Err(CheckError::Invalid(faults)) }
}

async fn run(shared: &Shared, request: &Request, faults: &mut Vec<Fault>) -> Result<Option<Run>, CheckError> {
    let prompt = shared.store.prompt(request.prompt).await?;
    if prompt.is_none() {
        faults.push(Fault::new("promptId", "no such prompt"));
    }
    let Some(model) = request.model.clone() else { return Ok(None) };
    if shared.providers.of(&model).is_none() {
        faults.push(Fault::new("config.model", format!("no endpoint is configured for {model:?}")));
    }
    let content = prompt.and_then(|prompt| prompt.content).unwrap_or_default();
    if content.trim().is_empty() || content.len() > CONTENT_BYTES_MAX {
        faults.push(Fault::new(
            "promptId",
            format!("its content is empty, or longer than {CONTENT_BYTES_MAX} bytes: it cannot be run"),
        ));
    }
    let max_tokens = request.max_tokens.unwrap_or(RUN_TOKENS);
    Ok(Some(Run { content, model, temperature: request.temperature, max_tokens }))
}

pub(crate) fn plan_one(
    shared: &Shared,
    request: &Request,
    live: &Live,
    template: Option<String>,
    at: usize,
    faults: &mut Vec<Fault>,
) -> Option<Planned> {
    let spec = &request.evaluators[at];
    let path = format!("config.evaluators[{at}]");
    let by = match live {
        Live::Code(_) => By::Code,
        Live::Plugin(_) => By::Plugin,
        Live::Judge(_) => {
            let others = [&request.judge_model, &shared.config.judge_model, &request.model];
            let model = own_model(spec, template.as_deref()).or_else(|| others.into_iter().flatten().next().cloned());
            let Some(model) = model else {
                faults.push(Fault::new(
                    "config.judgeModel",
                    format!("missing: {path} ({}) is judged by a model", spec.name),
                ));
                return None;
            };
            if shared.providers.of(&model).is_none() {
                faults.push(Fault::new(path, format!("no endpoint is configured for {model:?}")));
                return None;
            }
            By::Judge { model, template }
        }
    };
    let description = live.describe();
    let identity = live.identity();
    let name = |output: &str| match &spec.name_as {
        None => output.to_owned(),
        Some(name) if description.outputs.len() == 1 => name.clone(),
        Some(name) => format!("{name}.{output}"),
    };
    if spec.name_as.as_ref().is_some_and(|name| !(1..=128).contains(&name.len()) || name.contains(char::is_control)) {
        faults.push(Fault::new(format!("{path}.as"), "1 to 128 bytes"));
    }
    let scores = description.outputs.iter().map(|output| PlannedScore {
        output: output.name.to_string(),
        name: name(&output.name),
        direction: output.direction,
        min: output.range.min,
        max: output.range.max,
    });
    Some(Planned {
        spec: spec.clone(),
        by,
        version: identity.version.clone(),
        digest: identity.digest.clone(),
        kind: description.kind,
        scores: scores.collect(),
    })
}

/// Two scores of one name could not be told apart in the summary.
pub(crate) fn named_once(path: &str, plan: &Planned, before: &[Planned], faults: &mut Vec<Fault>) {
    let taken =
        |name: &str| name == "run" || before.iter().flat_map(|plan| &plan.scores).any(|score| score.name == name);
    for score in plan.scores.iter().filter(|score| taken(&score.name)) {
        faults.push(Fault::new(
            path,
            format!("there is a score {:?} already: give this one another name with \"as\"", score.name),
        ));
    }
}

/// Traces that begin later do not belong to the job: preparing it twice finds the same.
fn fixed(source: Source, now: emberd_model::UnixNanos) -> Source {
    match source {
        Source::Traces(mut traces) => {
            let now = Moment::from(now).micros();
            traces.to = Some(traces.to.map_or(now, |to| to.min(now)));
            Source::Traces(traces)
        }
        dataset @ Source::Dataset { .. } => dataset,
    }
}
