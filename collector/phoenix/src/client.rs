//! Asks Phoenix which spans it holds.
//!
//! Promise: [`Client::held`] names a span only if Phoenix's database has it, and under which trace. Each call is bounded in time
//! and in bytes, asks in as few requests as Phoenix answers well, and says in its error whether Phoenix was there at all.
//! On the wire: one GraphQL query for up to [`SPANS_MAX`] spans, a filter over a project's spans that gives back nothing but
//! ids: 0.3 to 0.4 ms of Phoenix's time for each, where storing one takes it 6 to 8 ms. The alternatives, measured, are in
//! docs/decisions/0006-forwarding.md.
//! Not here: when to ask, and what to do about a span that is missing (`emberd-consumers`).
//! Kept by: `emberd-consumers/tests/phoenix.rs`, against the real one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use emberd_model::{SpanId, TraceId};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// Spans asked for in one query; more make the query no cheaper for each, and Phoenix slower to answer others meanwhile.
pub const SPANS_MAX: usize = 250;

/// Projects asked about in one query. Phoenix takes 50 aliases and builds the answer for all of them at once.
const PROJECTS_MAX: usize = 10;

/// Phoenix refuses more aliases in one query.
const ALIASES_MAX: usize = 50;

/// An answer longer than this is not read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The header that every answer of Phoenix carries.
const VERSION_HEADER: &str = "x-phoenix-server-version";

/// Phoenix did not say what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke: Phoenix may have been restarted, and what it had not stored is lost.
    #[error("phoenix cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// No answer in time. Phoenix is there, but busy or hung.
    #[error("phoenix did not answer in time")]
    TimedOut,
    /// The API key is missing, wrong or revoked, or may not read.
    #[error("phoenix refused the api key with {status}")]
    Unauthorized {
        /// 401 or 403.
        status: StatusCode,
    },
    /// Something else than the answer.
    #[error("phoenix answered {status}: {said}")]
    Answer {
        /// The HTTP status.
        status: StatusCode,
        /// The beginning of what it said.
        said: String,
    },
    /// The URL or the API key cannot be used.
    #[error("{what} cannot be used")]
    Config {
        /// Which of them.
        what: &'static str,
    },
}

/// A span that Phoenix should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought<'a> {
    /// The project that it was sent for: see [`project_of`](emberd_model::ledger::project_of).
    pub project: &'a str,
    /// Its id.
    pub span: SpanId,
}

/// A connection to Phoenix's API.
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    authorization: RwLock<Option<HeaderValue>>,
    version: RwLock<Option<String>>,
}

impl Client {
    /// A client of the Phoenix at `base`, such as `http://127.0.0.1:6006`. `timeout` bounds each request.
    ///
    /// A default crypto provider for TLS must have been installed by then.
    pub fn new(base: &str, timeout: Duration) -> Result<Self, Error> {
        let base = base.trim_end_matches('/').to_owned();
        reqwest::Url::parse(&base).map_err(|_| Error::Config { what: "the url of phoenix" })?;
        let http = reqwest::Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none());
        let http = http.build().map_err(|_| Error::Config { what: "the network" })?;
        Ok(Self { http, base, authorization: RwLock::new(None), version: RwLock::new(None) })
    }

    /// The API key to use from now on.
    pub fn set_key(&self, key: Option<&str>) -> Result<(), Error> {
        let header = key.map(|key| HeaderValue::from_str(&format!("Bearer {key}"))).transpose();
        let mut header = header.map_err(|_| Error::Config { what: "the api key of phoenix" })?;
        header.iter_mut().for_each(|header| header.set_sensitive(true));
        *self.authorization.write().unwrap_or_else(PoisonError::into_inner) = header;
        Ok(())
    }

    /// The version that Phoenix last named; none before its first answer.
    #[must_use]
    pub fn last_version(&self) -> Option<String> {
        self.version.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for Phoenix's version: whether it is there and is a Phoenix.
    pub async fn version(&self) -> Result<String, Error> {
        let answer = self.send(self.http.get(format!("{}/arize_phoenix_version", self.base))).await?;
        let status = answer.status();
        // Another server, or Phoenix's web pages, may well answer 200 to a path that they do not know.
        let is_phoenix = answer.headers().contains_key(VERSION_HEADER);
        let text = String::from_utf8_lossy(&body(answer, ANSWER_BYTES_MAX).await?).trim().to_owned();
        if !is_phoenix || text.len() > 64 || text.contains(['<', '\n']) {
            return Err(Error::Answer { status, said: "this is not phoenix".to_owned() });
        }
        Ok(text)
    }

    /// Which of these spans Phoenix holds in the project that they were sent for, and under which trace.
    ///
    /// A span that is not among them may still be held in another project: see [`Client::whereabouts`].
    pub async fn held(&self, sought: &[Sought<'_>]) -> Result<HashMap<SpanId, TraceId>, Error> {
        let mut held = HashMap::with_capacity(sought.len());
        for chunk in sought.chunks(SPANS_MAX) {
            let mut projects: BTreeMap<&str, Vec<SpanId>> = BTreeMap::new();
            // PostgreSQL can hold no such project, and answers the whole query with an error.
            for sought in chunk.iter().filter(|sought| !sought.project.contains('\0')) {
                projects.entry(sought.project).or_default().push(sought.span);
            }
            let projects: Vec<_> = projects.into_iter().collect();
            for projects in projects.chunks(PROJECTS_MAX) {
                // A project that cannot be listed is one that holds nothing: its spans are then looked for one by one.
                let some = |data: &HashMap<String, Option<Node>>| data.values().any(Option::is_some);
                let answer = self.graphql(&listing(projects), some).await?;
                for spans in answer.into_values().flatten().filter_map(|project| project.spans) {
                    held.extend(spans.edges.into_iter().filter_map(|edge| edge.node.context.ids()));
                }
            }
        }
        Ok(held)
    }

    /// Under which trace Phoenix holds each of these spans, in whatever project. Ten times as dear as [`Client::held`].
    pub async fn whereabouts(&self, spans: &[SpanId]) -> Result<HashMap<SpanId, TraceId>, Error> {
        let mut found = HashMap::new();
        for chunk in spans.chunks(ALIASES_MAX) {
            let aliases: String = chunk
                .iter()
                .enumerate()
                .map(|(index, span)| {
                    format!("s{index}:getSpanByOtelId(spanId:\"{span}\"){{context{{spanId traceId}}}}")
                })
                .collect();
            let answer = self.graphql(&json!({ "query": format!("{{{aliases}}}") }), |_| false).await?;
            found.extend(answer.into_values().flatten().filter_map(|node| node.context?.ids()));
        }
        Ok(found)
    }

    /// Whether Phoenix holds a trace of this id, in whatever project.
    pub(crate) async fn knows_trace(&self, trace: TraceId) -> Result<bool, Error> {
        let query = format!("{{trace:getTraceByOtelId(traceId:\"{trace}\"){{id}}}}");
        let answer = self.graphql(&json!({ "query": query }), |_| false).await?;
        Ok(answer.into_values().any(|node| node.is_some()))
    }

    /// Asks; an answer with errors in it will do if what it holds beside them is `enough`.
    async fn graphql(
        &self,
        query: &Value,
        enough: impl Fn(&HashMap<String, Option<Node>>) -> bool,
    ) -> Result<HashMap<String, Option<Node>>, Error> {
        let answer = self.send(self.http.post(format!("{}/graphql", self.base)).json(query)).await?;
        let status = answer.status();
        let body = body(answer, ANSWER_BYTES_MAX).await?;
        let unreadable = || Error::Answer { status, said: beginning(&body) };
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| unreadable())?;
        match answer.data {
            Some(data) if answer.errors.is_empty() || enough(&data) => Ok(data),
            _ => Err(unreadable()),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let answer = self.exchange(request).await?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            status => Err(Error::Answer { status, said: beginning(&body(answer, ANSWER_BYTES_MAX).await?) }),
        }
    }

    /// Sends it with the key; whatever Phoenix answers, except that it does not take the key.
    pub(crate) async fn exchange(&self, request: RequestBuilder) -> Result<Response, Error> {
        let authorization = self.authorization.read().unwrap_or_else(PoisonError::into_inner).clone();
        let request = match authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        };
        let answer = request.send().await.map_err(failed)?;
        if let Some(version) = answer.headers().get(VERSION_HEADER).and_then(|version| version.to_str().ok()) {
            self.note(version);
        }
        match answer.status() {
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(Error::Unauthorized { status }),
            _ => Ok(answer),
        }
    }

    fn note(&self, version: &str) {
        let is_new = self.last_version().is_none_or(|last| last != version);
        if is_new && version.len() <= 64 {
            *self.version.write().unwrap_or_else(PoisonError::into_inner) = Some(version.to_owned());
        }
    }
}

/// The query that lists these spans of these projects.
fn listing(projects: &[(&str, Vec<SpanId>)]) -> Value {
    let mut arguments = String::new();
    let mut selections = String::new();
    let mut variables = serde_json::Map::new();
    for (index, (name, spans)) in projects.iter().enumerate() {
        let quoted: Vec<_> = spans.iter().map(|span| format!("'{span}'")).collect();
        // A filter is a Python expression; ids are hex, so there is nothing to escape.
        variables.insert(format!("f{index}"), format!("span_id in [{}]", quoted.join(",")).into());
        variables.insert(format!("p{index}"), (*name).into());
        variables.insert(format!("n{index}"), spans.len().into());
        arguments += &format!("$p{index}:String!,$f{index}:String!,$n{index}:Int!,");
        selections += &format!(
            "p{index}:getProjectByName(name:$p{index}){{spans(first:$n{index},filterCondition:$f{index})\
             {{edges{{node{{context{{spanId traceId}}}}}}}}}}"
        );
    }
    json!({ "query": format!("query({arguments}){{{selections}}}"), "variables": variables })
}

/// The answer's body, if it has no more than `bytes_max`.
pub(crate) async fn body(mut answer: Response, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(Error::Answer { status: answer.status(), said: "an endless answer".to_owned() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn failed(error: reqwest::Error) -> Error {
    if error.is_timeout() && !error.is_connect() { Error::TimedOut } else { Error::Unreachable(error) }
}

pub(crate) fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned()
}

#[derive(Deserialize)]
struct Answer {
    data: Option<HashMap<String, Option<Node>>>,
    #[serde(default)]
    errors: Vec<serde::de::IgnoredAny>,
}

/// A project or a span.
#[derive(Deserialize)]
struct Node {
    spans: Option<Edges>,
    context: Option<Context>,
}

#[derive(Deserialize)]
struct Edges {
    edges: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    node: SpanNode,
}

#[derive(Deserialize)]
struct SpanNode {
    context: Context,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    span_id: String,
    trace_id: String,
}

impl Context {
    fn ids(&self) -> Option<(SpanId, TraceId)> {
        Some((self.span_id.parse().ok()?, self.trace_id.parse().ok()?))
    }
}
