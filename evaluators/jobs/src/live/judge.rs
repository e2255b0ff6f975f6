//! One evaluator on one trace, with the rule's money.
//!
//! Promise: as for a job's item. A call leaves only when its highest price was set aside for the rule; an answer is stored with its price
//! before it is read, so that a trace which is judged again after a crash is not paid for again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use emberd_evaluators_kit::contract::Retry;
use emberd_evaluators_kit::judge::Judge;
use emberd_evaluators_kit::{Class, Coded, Evaluator as _, Example, Failure, Outcome};
use emberd_model::TraceId;
use emberd_store::jobs::{Answer, End, ItemKey, Money, RuleReserved, Scored, Spent};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::rule::Ready;
use crate::digest;
use crate::engine::Shared;
use crate::evaluators::Live;
use crate::plan::{By, Planned};
use crate::price;
use crate::provider::{Bill, Failed, Provider, completion};
use crate::scored::{self, Took};

/// Tries of what may succeed later.
const TRIES_MAX: u32 = 5;
/// Tries of a call for which other calls hold the money.
const MONEY_TRIES_MAX: u32 = 120;
const MONEY_WAIT: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// What is said to a model whose answer was not the asked structure. Its answer is not shown to it again.
const REPAIR: &str = "Your last answer was not the JSON object that was asked for. Answer again, with that one JSON object and nothing else.";

/// Why there is no outcome at all.
#[derive(Debug)]
pub(super) enum Unjudged {
    /// The rule was switched off or deleted.
    Disabled,
    /// emberd stops: nothing is written, and the trace is judged again.
    Stopping,
    /// The database's; for the log.
    Store(#[allow(dead_code, reason = "told by Debug")] emberd_store::Error),
}

impl From<emberd_store::Error> for Unjudged {
    fn from(error: emberd_store::Error) -> Self {
        Self::Store(error)
    }
}

/// A trace before a rule's evaluator.
pub(super) struct Case<'a> {
    pub(super) shared: &'a Shared,
    pub(super) rule: &'a Ready,
    pub(super) trace: TraceId,
    /// From 1.
    pub(super) step: i64,
    pub(super) planned: &'a Planned,
    pub(super) example: &'a Arc<Example>,
}

impl Case<'_> {
    /// Its scores, or a failure for each of them.
    pub(super) async fn judged(&self, live: &Result<Live, String>) -> Result<Vec<Scored>, Unjudged> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (outcome, took) = match live {
                Err(why) => (Failure::new(Class::ConfigError, why.clone()).into(), Took::default()),
                Ok(Live::Code(code)) => self.code(code).await,
                Ok(Live::Plugin(metric)) => self.plugin(metric).await,
                Ok(Live::Judge(judge)) => self.judge(judge).await?,
            };
            if let Err(failure) = &outcome.result
                && self.is_worth_more(failure, tries)
            {
                let wait = (self.shared.config.backoff * (1 << tries.min(6))).min(WAIT_MAX);
                self.pause(wait.max(failure.retry_after.unwrap_or_default()).min(WAIT_MAX)).await?;
                continue;
            }
            return Ok(match scored::end(self.planned, outcome, took) {
                End::Done { scores, .. } => scores,
                End::Failed { errors, .. } => errors,
                _ => Vec::new(),
            });
        }
    }

    fn is_worth_more(&self, failure: &Failure, tries: u32) -> bool {
        match (failure.class.retry(), failure.class) {
            (Retry::Later, _) => tries < TRIES_MAX,
            (Retry::Once, Class::PluginFault) => tries < 2,
            (Retry::Once | Retry::Never, _) => false,
        }
    }

    async fn pause(&self, wait: Duration) -> Result<(), Unjudged> {
        match tokio::time::timeout(wait, self.shared.stopping.cancelled()).await {
            Ok(()) => Err(Unjudged::Stopping),
            Err(_) => Ok(()),
        }
    }

    async fn code(&self, code: &Arc<Coded>) -> (Outcome, Took) {
        let (code, example, started) = (Arc::clone(code), Arc::clone(self.example), Instant::now());
        let outcome = tokio::task::spawn_blocking(move || code.run(&example)).await;
        let outcome = outcome.unwrap_or_else(|_| Failure::new(Class::PluginFault, "the evaluator broke off").into());
        (outcome, Took { latency: started.elapsed(), ..Took::default() })
    }

    async fn plugin(&self, metric: &Arc<emberd_evaluators_hosts::Metric>) -> (Outcome, Took) {
        let started = Instant::now();
        let one = std::slice::from_ref(&**self.example);
        let first = async { metric.evaluate(one).next().await };
        let outcome = match tokio::time::timeout(self.shared.config.batch_deadline, first).await {
            Ok(Some((_, outcome))) => outcome,
            Ok(None) => Failure::new(Class::PluginFault, "no answer for this example").into(),
            Err(_) => Failure::new(Class::Timeout, "no answer from the plugin at the batch's deadline").into(),
        };
        (outcome, Took { latency: started.elapsed(), ..Took::default() })
    }

    async fn judge(&self, judge: &Judge) -> Result<(Outcome, Took), Unjudged> {
        let mut took = Took { cached: true, ..Took::default() };
        let By::Judge { model, .. } = &self.planned.by else {
            return Ok((Failure::new(Class::ConfigError, "no model is planned").into(), took));
        };
        let Some(provider) = self.shared.providers.of(model) else {
            let failure = Failure::new(Class::ConfigError, format!("no endpoint is configured for {model:?}"));
            return Ok((failure.into(), took));
        };
        let prompt = match judge.prompt(self.example) {
            Ok(prompt) => prompt,
            Err(failure) => return Ok((failure.into(), took)),
        };
        let (mut body, mut is_first) = (prompt.body(model), true);
        loop {
            let bytes = body.to_string().into_bytes();
            let call = Call {
                provider: &provider,
                model,
                messages: prompt.messages.len() + 1,
                max_tokens: prompt.max_tokens,
                shared: digest::shared(&judge.identity().to_string(), provider.endpoint(), &bytes),
                own: digest::own(self.key(), 0, &bytes),
                body: bytes,
            };
            let answer = match self.ask(call, |body| judge.verdict(body).result.is_ok()).await? {
                Ok((answer, one)) => {
                    took.money.0 = took.money.0.saturating_add(one.money.0);
                    took.latency += one.latency;
                    took.cached &= one.cached;
                    answer
                }
                Err((failure, money)) => {
                    took.money.0 = took.money.0.saturating_add(money.0);
                    return Ok((failure.into(), Took { cached: false, ..took }));
                }
            };
            let mut outcome = judge.verdict(&answer);
            match &mut outcome.result {
                Ok(scores) => {
                    for score in scores {
                        score.metadata.insert("prompt_hash".to_owned(), Value::String(prompt.hash.clone()));
                    }
                }
                // Once more: another answer may have a verdict.
                Err(failure) if is_first && failure.class == Class::Parse => {
                    is_first = false;
                    if let Some(messages) = body.get_mut("messages").and_then(Value::as_array_mut) {
                        messages.push(json!({"role": "user", "content": REPAIR}));
                    }
                    continue;
                }
                Err(_) => {}
            }
            outcome.cost = None;
            return Ok((outcome, took));
        }
    }

    /// Under which an answer without a verdict is found again: the rule, the trace and the evaluator.
    fn key(&self) -> ItemKey {
        let half = i64::from_be_bytes(std::array::from_fn(|at| self.trace.0[8 + at]));
        ItemKey { job: self.rule.id, nr: half, step: self.step }
    }

    /// An answer that is there, or one that is paid for now.
    async fn ask(
        &self,
        call: Call<'_>,
        is_good: impl Fn(&[u8]) -> bool,
    ) -> Result<Result<(Vec<u8>, Took), (Failure, Money)>, Unjudged> {
        let shared = self.shared;
        let digests = vec![call.own.clone(), call.shared.clone()];
        let found = shared.patiently(&shared.stopping, || shared.store.answers(digests.clone())).await?;
        if let Some((text, _)) = found.into_iter().flatten().next() {
            let (head, body) = text.split_once('\n').unwrap_or(("", &text));
            let micros = head.split(' ').next().and_then(|micros| micros.parse().ok()).unwrap_or(0);
            let took = Took { money: Money(0), latency: Duration::from_micros(micros), cached: true };
            return Ok(Ok((body.as_bytes().to_vec(), took)));
        }
        let place = match call.provider.place().await {
            Ok(place) => place,
            Err(failure) => return Ok(Err((failure, Money(0)))),
        };
        let tokens_in = price::tokens_max(call.body.len(), call.messages);
        let highest = price::highest(&shared.config.prices, call.model, tokens_in, call.max_tokens.into());
        let highest = highest.unwrap_or_default();
        let number = match self.reserve(highest).await? {
            Ok(number) => number,
            Err(failure) => return Ok(Err((failure, Money(0)))),
        };
        let answered = call.provider.ask(place, call.body.clone()).await;
        let (spent, told) = match answered {
            Err(Failed { failure, bill }) => {
                let money = if bill == Bill::Nothing { Money(0) } else { highest };
                (Spent { money, tokens: 0, answer: None }, Err((failure, money)))
            }
            Ok(answered) => {
                let usage = completion(&answered.body).usage;
                let money = price::actual(&shared.config.prices, call.model, &usage).unwrap_or(highest);
                let digest = if is_good(&answered.body) { call.shared } else { call.own };
                let text = format!(
                    "{} rule {} {}\n{}",
                    answered.latency.as_micros(),
                    self.rule.id,
                    self.trace,
                    String::from_utf8_lossy(&answered.body)
                );
                let spent = Spent { money, tokens: usage.sums().2, answer: Some(Answer { digest, body: text }) };
                (spent, Ok((answered.body, Took { money, latency: answered.latency, cached: false })))
            }
        };
        // The money is gone: this is tried for as long as it takes.
        let never = CancellationToken::new();
        let settle = || shared.store.settle_rule(self.rule.id, number, spent.clone(), shared.now());
        shared.patiently(&never, settle).await?;
        Ok(told)
    }

    async fn reserve(&self, highest: Money) -> Result<Result<i64, Failure>, Unjudged> {
        let shared = self.shared;
        let lease = self.lease();
        for _ in 0..MONEY_TRIES_MAX {
            let reserve = || shared.store.reserve_rule(self.rule.id, highest, lease, shared.now());
            match shared.patiently(&shared.stopping, reserve).await? {
                RuleReserved::Call(number) => return Ok(Ok(number)),
                RuleReserved::Disabled => return Err(Unjudged::Disabled),
                RuleReserved::NoBudget => {}
            }
            let rule = shared.patiently(&shared.stopping, || shared.store.rule(self.rule.id)).await?;
            let Some(rule) = rule else { return Err(Unjudged::Disabled) };
            let left = rule.budget.unwrap_or_default().0.saturating_sub(rule.spent.0);
            if left < highest.0 {
                let (highest, left) = (price::dollars(highest), price::dollars(Money(left.max(0))));
                let message = format!("this call may cost ${highest}, and ${left} of the budget are left");
                return Ok(Err(Failure::new(Class::Budget, message)));
            }
            // Set aside for calls on their way, which may cost less.
            self.pause(MONEY_WAIT).await?;
        }
        Ok(Err(Failure::new(Class::Budget, "other calls hold what is left of the budget")))
    }

    /// Longer than any call takes.
    fn lease(&self) -> Duration {
        let longest = self.shared.config.endpoints.iter().map(|endpoint| endpoint.deadline).max().unwrap_or_default();
        longest.saturating_mul(2).max(Duration::from_secs(60))
    }
}

struct Call<'a> {
    provider: &'a Provider,
    model: &'a str,
    body: Vec<u8>,
    messages: usize,
    max_tokens: u32,
    shared: Vec<u8>,
    own: Vec<u8>,
}
