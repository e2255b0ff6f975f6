//! A prompt library's side: users with tokens, requests by the clock.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use emberd_identity::bridge::Bridge;
use emberd_identity::claims::Party;
use emberd_identity::{Permissions, Secret};
use emberd_model::UnixNanos;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use uuid::Uuid;

use super::SECRET;
use crate::payload::mix;

/// A user, and the token that shows it.
pub(super) struct User {
    pub(super) token: String,
}

impl User {
    pub(super) fn new(nr: usize) -> anyhow::Result<Self> {
        let secret = Secret::new(SECRET)?;
        let party = Party { issuer: "sambatv-prompt-library".into(), audience: "phoenix-service".into() };
        let bridge = Bridge::new(secret, party, "bench".into(), "bench".into());
        let id = Uuid::from_u128(u128::from(mix(nr as u64)) << 64 | nr as u128);
        let user = emberd_identity::User {
            id,
            subject: id.to_string(),
            email: Some(format!("user-{nr}@example.com")),
            name: Some(format!("User {nr}")),
            role: if nr == 0 { "admin" } else { "member" }.into(),
            permissions: Permissions::of_role(nr == 0),
            department: None,
        };
        Ok(Self { token: bridge.token(&user, now()).text })
    }
}

#[expect(clippy::disallowed_methods, reason = "tokens and spans of the clients have the time of day")]
fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixNanos(since.as_nanos() as u64)
}

/// Answers, with their latencies in milliseconds.
pub(super) struct Asked {
    millis: Vec<f64>,
    pub(super) failed: usize,
}

impl Asked {
    pub(super) fn of(mut millis: Vec<f64>, failed: usize) -> Self {
        millis.sort_by(f64::total_cmp);
        Self { millis, failed }
    }

    pub(super) fn count(&self) -> usize {
        self.millis.len()
    }

    pub(super) fn percentile(&self, part: f64) -> f64 {
        let at = (self.millis.len() as f64 * part) as usize;
        self.millis.get(at.min(self.millis.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }
}

/// Asks so many times a second for so long, whether or not the answers before have come.
pub(super) async fn by_the_clock<F: Future<Output = anyhow::Result<()>>>(
    rate: f64,
    seconds: f64,
    ask: impl Fn(usize) -> F,
) -> Asked {
    let begun = Instant::now();
    let all = (rate * seconds) as usize;
    let (mut millis, mut failed) = (Vec::with_capacity(all), 0);
    let mut under_way = FuturesUnordered::new();
    let mut next = 0;
    while next < all || !under_way.is_empty() {
        let due = begun + Duration::from_secs_f64(next as f64 / rate);
        tokio::select! {
            () = tokio::time::sleep_until(due.into()), if next < all => {
                let answer = ask(next);
                under_way.push(async move { (answer.await, due) });
                next += 1;
            }
            Some((answer, due)) = under_way.next() => {
                millis.push(due.elapsed().as_secs_f64() * 1e3);
                if let Err(error) = answer {
                    if failed == 0 {
                        eprintln!("api: {error:#}");
                    }
                    failed += 1;
                }
            }
        }
    }
    Asked::of(millis, failed)
}

/// Asks as any of the users.
pub(super) struct Client<'a> {
    http: reqwest::Client,
    users: &'a [User],
    /// Sums of 1/n, for Zipf's law.
    sums: Vec<f64>,
}

impl<'a> Client<'a> {
    pub(super) fn new(users: &'a [User]) -> Self {
        let sums = (1..=users.len()).scan(0.0, |sum, n| {
            *sum += 1.0 / n as f64;
            Some(*sum)
        });
        Self { http: reqwest::Client::new(), users, sums: sums.collect() }
    }

    /// Who asks the nth time.
    pub(super) fn whose(&self, nr: usize) -> &'a User {
        let all = self.sums.last().copied().unwrap_or(1.0);
        let at = mix(nr as u64) as f64 / u64::MAX as f64 * all;
        let user = self.sums.partition_point(|sum| *sum < at);
        &self.users[user.min(self.users.len() - 1)]
    }

    pub(super) async fn get(&self, host: &str, path: String, user: &User) -> anyhow::Result<()> {
        let answer = self.http.get(format!("http://{host}{path}")).bearer_auth(&user.token).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(())
    }

    pub(super) async fn post(&self, host: &str, path: String, user: &User, body: Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("http://{host}{path}")).bearer_auth(&user.token).json(&body);
        let answer = request.send().await?;
        let (status, body) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Makes prompts; gives their ids.
    pub(super) async fn prompts(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let prompt = json!({ "title": format!("prompt {}", Uuid::new_v4()), "content": "{{input}}" });
            let made = self.post(crate::server::API, "/api/prompts".into(), &self.users[0], prompt).await?;
            ids.push(made["id"].as_str().context("no id")?.to_owned());
        }
        Ok(ids)
    }

    /// Sends traces of one call each, and waits a moment for their rows.
    pub(super) async fn traces(&self, otlp: &str, prompts: &[String], count: usize) -> anyhow::Result<()> {
        for first in (0..count).step_by(500) {
            let ids: Vec<String> = (0..500).map(|_| Uuid::new_v4().simple().to_string()).collect();
            let of = |nr: usize| prompts[(first + nr) % prompts.len()].as_str();
            self.send(otlp, &ids, of).await?;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(())
    }

    /// Sends a trace of one call for each id.
    pub(super) async fn send<'p>(
        &self,
        otlp: &str,
        ids: &[String],
        prompt: impl Fn(usize) -> &'p str,
    ) -> anyhow::Result<()> {
        let now = now().0;
        let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let int = |key: &str, value: i64| json!({ "key": key, "value": { "intValue": value } });
        let spans: Vec<Value> = ids
            .iter()
            .enumerate()
            .map(|(nr, id)| {
                json!({
                    "traceId": id, "spanId": &Uuid::new_v4().simple().to_string()[..16], "name": "chat",
                    "startTimeUnixNano": (now - 250_000_000).to_string(), "endTimeUnixNano": now.to_string(),
                    "attributes": [
                        text("openinference.span.kind", "LLM"), text("prompt.id", prompt(nr)), text("llm.model_name", "gpt-4o"),
                        int("llm.token_count.prompt", 12), int("llm.token_count.completion", 5),
                    ],
                })
            })
            .collect();
        let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] });
        let answer = self.http.post(format!("http://{otlp}/v1/traces")).json(&body).send().await?;
        ensure!(answer.status().is_success(), "traces: {}", answer.status());
        Ok(())
    }
}
