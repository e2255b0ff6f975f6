//! An item through its step: the prompt run by a model, a judging model, a function, a plugin.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use emberd_evaluators_hosts::Metric;
use emberd_evaluators_kit::judge::Judge;
use emberd_evaluators_kit::{Class, Coded, Evaluator as _, Example, Failure, Outcome};
use emberd_store::jobs::{End, Ended, Given, Leased, Money};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use crate::digest;
use crate::engine::Shared;
use crate::examples::seen;
use crate::job::{Running, TAKINGS_MAX, in_a_while};
use crate::leases::Held;
use crate::paid::{Ask, Asked, Paid, ask};
use crate::plan::{Planned, Run};
use crate::prompting::messages;
use crate::provider::{Provider, completion};
use crate::scored::{self, Took};

/// What is said to a model whose answer was not the asked structure. Its answer is not shown to it again.
const REPAIR: &str = "Your last answer was not the JSON object that was asked for. Answer again, with that one JSON object and nothing else.";
/// A judge whose answer was cut off may write twice as much, up to this.
const TOKENS_MAX: u32 = 32_768;
/// When a call is tried that waits for other calls' money.
const MONEY_WAIT: Duration = Duration::from_millis(500);

/// A target that is alone in its item.
pub(crate) struct One {
    pub(crate) attempt: i64,
    pub(crate) given: Given,
}

/// Runs the prompt for a target. None: write nothing.
pub(crate) async fn run(
    shared: &Shared,
    job: &Running,
    (run, provider): (&Run, &Provider),
    one: &One,
    held: &Held,
    retried: u32,
) -> Option<End> {
    let input = seen(&one.given.body, None).input;
    let messages = match messages(&run.content, &input) {
        Ok(messages) => messages,
        Err(failure) => return Some(scored::not_run(&job.plan, &run.model, &failure, Took::default())),
    };
    let count = messages.len();
    let mut body = Map::new();
    body.insert("model".into(), json!(run.model));
    body.insert("messages".into(), json!(messages));
    body.insert("max_tokens".into(), json!(run.max_tokens));
    if let Some(temperature) = run.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    let body = Value::Object(body).to_string().into_bytes();
    let own = digest::own(held.key, retried, &body);
    // Not shared: a job that runs a prompt again wants the model's word, latency and price of today.
    let what =
        Ask { provider, model: &run.model, body, messages: count, max_tokens: run.max_tokens, shared: None, own };
    match ask(shared, job, held, what, |_| true).await {
        Asked::Lost => None,
        Asked::Wait => Some(End::Again { due: in_a_while(shared.now(), MONEY_WAIT) }),
        Asked::Failed(failure, money) => {
            Some(not_run(shared, job, run, one, &failure, Took { money, ..Took::default() }))
        }
        Asked::Answer(paid) => Some(ran(job, run, &paid)),
    }
}

fn not_run(shared: &Shared, job: &Running, run: &Run, one: &One, failure: &Failure, took: Took) -> End {
    match job.again(shared, one.attempt, failure) {
        Some(due) => End::Again { due },
        None => scored::not_run(&job.plan, &run.model, failure, took),
    }
}

fn ran(job: &Running, run: &Run, paid: &Paid) -> End {
    let took = Took { money: paid.money, latency: paid.latency, cached: paid.cached };
    let answer = completion(&paid.body);
    let output = match answer.content {
        Ok(output) => output,
        Err(failure) => return scored::not_run(&job.plan, &run.model, &failure, took),
    };
    let (prompt, completion, total) = answer.usage.sums();
    let metadata = json!({
        "latency_ms": paid.latency.as_micros() as f64 / 1e3,
        "cost_usd": crate::price::dollars(paid.money),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "finish_reason": answer.finish_reason,
        "model": answer.model.as_deref().unwrap_or(&run.model),
    });
    let row = scored::ran(&run.model, answer.finish_reason.as_deref(), metadata.clone(), took);
    End::Done { scores: vec![row], output: Some(json!({"output": output, "metadata": metadata})) }
}

/// A judge with where its model is.
pub(crate) struct Court<'a> {
    pub(crate) planned: &'a Planned,
    pub(crate) judge: &'a Judge,
    pub(crate) provider: &'a Provider,
    pub(crate) model: &'a str,
}

/// Has a target judged by a model. None: write nothing.
pub(crate) async fn judge(
    shared: &Shared,
    job: &Running,
    court: Court<'_>,
    one: &One,
    held: &Held,
    retried: u32,
) -> Option<End> {
    let Court { planned, judge, provider, model } = court;
    let example = seen(&one.given.body, one.given.output.as_deref());
    let prompt = match judge.prompt(&example) {
        Ok(prompt) => prompt,
        Err(failure) => return Some(scored::end(planned, failure.into(), Took::default())),
    };
    let (mut body, mut max_tokens) = (prompt.body(model), prompt.max_tokens);
    let mut took = Took { cached: true, ..Took::default() };
    let mut first_failure = None;
    loop {
        let bytes = body.to_string().into_bytes();
        let what = Ask {
            provider,
            model,
            messages: prompt.messages.len() + 1,
            max_tokens,
            shared: Some(digest::shared(&judge.identity().to_string(), provider.endpoint(), &bytes)),
            own: digest::own(held.key, retried, &bytes),
            body: bytes,
        };
        let paid = match ask(shared, job, held, what, |body| judge.verdict(body).result.is_ok()).await {
            Asked::Lost => return None,
            Asked::Wait => return Some(End::Again { due: in_a_while(shared.now(), MONEY_WAIT) }),
            Asked::Failed(failure, money) => {
                took.money.0 = took.money.0.saturating_add(money.0);
                let end = || scored::end(planned, failure.clone().into(), Took { cached: false, ..took });
                return Some(job.again(shared, one.attempt, &failure).map_or_else(end, |due| End::Again { due }));
            }
            Asked::Answer(paid) => paid,
        };
        took.money.0 = took.money.0.saturating_add(paid.money.0);
        took.latency += paid.latency;
        took.cached &= paid.cached;
        let mut outcome = judge.verdict(&paid.body);
        match &mut outcome.result {
            Ok(scores) => {
                for score in scores {
                    score.metadata.insert("prompt_hash".to_owned(), Value::String(prompt.hash.clone()));
                }
            }
            // Once more: another answer may have a verdict.
            Err(failure) if first_failure.is_none() && repair(failure.class, &mut body, &mut max_tokens) => {
                first_failure = Some(failure.class);
                continue;
            }
            Err(_) => {}
        }
        outcome.cost = None;
        return Some(scored::end(planned, outcome, took));
    }
}

/// Makes the second question; false where there is none.
fn repair(class: Class, body: &mut Value, max_tokens: &mut u32) -> bool {
    match class {
        Class::Parse => {
            if let Some(messages) = body.get_mut("messages").and_then(Value::as_array_mut) {
                messages.push(json!({"role": "user", "content": REPAIR}));
            }
            true
        }
        Class::Truncated => {
            *max_tokens = max_tokens.saturating_mul(2).min(TOKENS_MAX.max(*max_tokens));
            body["max_tokens"] = json!(*max_tokens);
            true
        }
        _ => false,
    }
}

/// Has a batch judged by a function, here and now: on a thread that may block.
pub(crate) fn code(planned: &Planned, code: &Coded, batch: Vec<Leased>) -> Vec<Ended> {
    let one = |given: &Given, attempt: i64| {
        let started = Instant::now();
        let outcome = if attempt > TAKINGS_MAX {
            Failure::new(Class::PluginFault, "it was begun too often and never came to its end").into()
        } else {
            let example = seen(&given.body, given.output.as_deref());
            catch_unwind(AssertUnwindSafe(|| code.run(&example)))
                .unwrap_or_else(|_| Failure::new(Class::PluginFault, "the evaluator broke off").into())
        };
        scored::end(planned, outcome, Took { latency: started.elapsed(), ..Took::default() })
    };
    let item = |Leased { key, fence, attempt, targets }: Leased| Ended {
        key,
        fence,
        ends: targets.iter().map(|given| one(given, attempt)).collect(),
    };
    batch.into_iter().map(item).collect()
}

/// Has a batch judged by a plugin, for as long as a batch may take.
pub(crate) async fn plugin(
    shared: &Shared,
    job: &Running,
    planned: &Planned,
    metric: &Arc<Metric>,
    batch: Vec<Leased>,
) -> Vec<Ended> {
    let started = Instant::now();
    let (mut items, mut examples) = (Vec::with_capacity(batch.len()), Vec::<Example>::with_capacity(batch.len()));
    for Leased { key, fence, attempt, targets } in batch {
        items.push((key, fence, attempt, targets.len()));
        examples.extend(targets.iter().map(|given| seen(&given.body, given.output.as_deref())));
    }
    let mut outcomes: Vec<Option<(Outcome, Duration)>> = examples.iter().map(|_| None).collect();
    let all = async {
        let mut stream = metric.evaluate(&examples);
        while let Some((at, outcome)) = stream.next().await {
            if let Some(place @ None) = outcomes.get_mut(at) {
                *place = Some((outcome, started.elapsed()));
            }
        }
        Failure::new(Class::PluginFault, "no answer for this example")
    };
    let late = || Failure::new(Class::Timeout, "no answer from the plugin at the batch's deadline");
    let without = tokio::time::timeout(shared.config.batch_deadline, all).await.unwrap_or_else(|_| late());
    let mut outcomes = outcomes.into_iter();
    let mut end = |attempt| {
        let outcome = outcomes.next().flatten();
        let (outcome, latency) = outcome.unwrap_or_else(|| (without.clone().into(), started.elapsed()));
        let again = outcome.result.as_ref().err().and_then(|failure| job.again(shared, attempt, failure));
        let took = Took { latency, ..Took::default() };
        again.map_or_else(|| scored::end(planned, outcome, took), |due| End::Again { due })
    };
    let ended = items.into_iter().map(|(key, fence, attempt, targets)| {
        let ends = (0..targets).map(|_| end(attempt)).collect();
        Ended { key, fence, ends }
    });
    ended.collect()
}

/// Fails a batch whose evaluator cannot be built.
pub(crate) fn broken(job: &Running, step: i64, failure: &Failure, batch: Vec<Leased>) -> Vec<Ended> {
    let end = || match job.plan.evaluator(step) {
        Some(planned) => scored::end(planned, failure.clone().into(), Took::default()),
        None => scored::not_run(&job.plan, "", failure, Took { money: Money(0), ..Took::default() }),
    };
    let item = |Leased { key, fence, targets, .. }: Leased| Ended {
        key,
        fence,
        ends: targets.iter().map(|_| end()).collect(),
    };
    batch.into_iter().map(item).collect()
}
