//! `[evaluation]` of the configuration, as values that cannot be wrong once [`Engine::new`](crate::Engine::new) took them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use emberd_model::cost::Prices;

/// How jobs are run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where models are asked; the first whose `models` fit is taken.
    pub endpoints: Vec<Endpoint>,
    /// The model that judges, where neither the job nor the template names one.
    pub judge_model: Option<String>,
    /// What models cost.
    pub prices: Arc<Prices>,
    /// How long an item is one emberd's without a sign of life. A dead emberd's items are taken over after it.
    pub lease: Duration,
    /// How often the database is asked for jobs and items.
    pub poll: Duration,
    /// How long calls in flight may take to end when emberd stops.
    pub grace: Duration,
    /// From taking a batch to its last outcome; what is without one then fails with `timeout`.
    pub batch_deadline: Duration,
    /// How long a job waits for an endpoint that is overloaded, out of order or out of quota; counted from its making, or its last retry.
    pub patience: Duration,
    /// Before the second try; twice as long before each further one, a minute at most.
    pub backoff: Duration,
    /// Batches of code evaluators at the same time.
    pub code_batches: usize,
    /// Calls of plugins at the same time.
    pub plugin_batches: usize,
    /// How long answers are kept for whoever asks the same again.
    pub answers_kept: Duration,
    /// How long decisions of rules are kept.
    pub decisions_kept: Duration,
    /// Whether what is found goes into the outbox, to be told to a Phoenix.
    pub tells_phoenix: bool,
}

impl Default for Config {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            endpoints: Vec::new(),
            judge_model: None,
            prices: Arc::default(),
            lease: Duration::from_secs(60),
            poll: Duration::from_millis(500),
            grace: Duration::from_secs(10),
            batch_deadline: Duration::from_secs(120),
            patience: Duration::from_secs(3600),
            backoff: Duration::from_secs(1),
            code_batches: 2,
            plugin_batches: 4,
            answers_kept: 30 * DAY,
            decisions_kept: 90 * DAY,
            tells_phoenix: true,
        }
    }
}

/// An OpenAI-compatible endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What `/chat/completions` is put behind, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// The models that it has, by the beginnings of their names; empty for all.
    pub models: Vec<String>,
    /// Calls of one model at the same time, at most; begun with fewer, and halved by each 429.
    pub concurrency_max: u32,
    /// From sending a call to its whole answer.
    pub deadline: Duration,
    /// The longest wait that a `Retry-After` may ask for.
    pub retry_after_max: Duration,
}

impl Endpoint {
    /// This endpoint with the usual bounds.
    pub fn new(base_url: impl Into<String>, api_key: Option<Secret>) -> Self {
        Self {
            base_url: base_url.into(),
            api_key,
            models: Vec::new(),
            concurrency_max: 32,
            deadline: Duration::from_secs(60),
            retry_after_max: Duration::from_secs(300),
        }
    }

    pub(crate) fn has(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|begin| model.starts_with(begin.as_str()))
    }
}

/// A key; never shown.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

/// A configuration that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct ConfigError {
    /// The key.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

impl Config {
    /// All that is wrong with it.
    pub(crate) fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut wrong = |key: String, what: &str| errors.push(ConfigError { key, what: what.to_owned() });
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let key = |name: &str| format!("endpoints[{at}].{name}");
            let url = reqwest::Url::parse(&endpoint.base_url);
            if !url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
                wrong(key("base_url"), "a URL that begins with http:// or https://");
            }
            if endpoint.api_key.as_ref().is_some_and(|secret| !secret.0.bytes().all(|byte| byte.is_ascii_graphic())) {
                wrong(key("api_key"), "printable ASCII without spaces");
            }
            if endpoint.concurrency_max == 0 {
                wrong(key("concurrency_max"), "over 0");
            }
            if endpoint.deadline.is_zero() {
                wrong(key("deadline"), "longer than nothing");
            }
        }
        if self.lease < Duration::from_secs(1) {
            wrong("lease".into(), "at least a second");
        }
        if self.poll.is_zero() || self.batch_deadline.is_zero() || self.backoff.is_zero() {
            wrong("poll, batch_deadline, backoff".into(), "longer than nothing");
        }
        if self.code_batches == 0 || self.plugin_batches == 0 {
            wrong("code_batches, plugin_batches".into(), "over 0");
        }
        errors
    }
}
