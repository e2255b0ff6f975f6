//! The running daemon's API, for commands that ask or change something there.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::config::Config;
use crate::run_file::RunFile;

/// An answer takes no longer; uploads of large datasets included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the daemon answers, and as whom it is asked.
pub(super) struct Remote {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Remote {
    /// The daemon of this data directory, else the one at the configured address. `EMBERD_TOKEN` is sent where an identity is asked for.
    pub(super) fn of(config: &Config) -> anyhow::Result<Self> {
        let base = RunFile::api(&config.data_dir).unwrap_or_else(|| format!("http://{}", config.api.listen));
        let token = std::env::var("EMBERD_TOKEN").ok().filter(|token| !token.is_empty());
        Ok(Self { http: reqwest::Client::builder().timeout(PATIENCE).build()?, base, token })
    }

    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, query, |request| request).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, &[], |request| request.json(body)).await
    }

    /// Sends a file.
    pub(super) async fn upload(
        &self,
        path: &str,
        query: &[(&str, String)],
        media_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Value> {
        let set = |request: reqwest::RequestBuilder| request.header("content-type", media_type).body(body);
        self.ask(Method::POST, path, query, set).await
    }

    /// Gets a file.
    pub(super) async fn download(&self, path: &str, media_type: &str) -> anyhow::Result<Vec<u8>> {
        self.send(Method::GET, path, &[], |request| request.header("accept", media_type)).await
    }

    /// All pages of a list, up to `rows` of them.
    pub(super) async fn all(&self, path: &str, query: &[(&str, String)], rows: usize) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut cursor = None;
        while all.len() < rows {
            let mut query = query.to_vec();
            query.push(("limit", (rows - all.len()).min(200).to_string()));
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let mut page = self.get(path, &query).await?;
            let Value::Array(data) = page["data"].take() else { bail!("an answer without data") };
            all.extend(data);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        Ok(all)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        set: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> anyhow::Result<Value> {
        let body = self.send(method, path, query, set).await?;
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        set: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> anyhow::Result<Vec<u8>> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.base), query)?;
        let mut request = set(self.http.request(method, url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.with_context(|| {
            format!("emberd does not answer at {}: is it running? (`emberd serve`, and --data-dir as there)", self.base)
        })?;
        let status = answer.status();
        let body = answer.bytes().await?.to_vec();
        if status.is_success() {
            return Ok(body);
        }
        let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        bail!("{}", refused(status, &value, self.token.is_some()))
    }
}

/// What the daemon said, for a person.
fn refused(status: StatusCode, body: &Value, has_token: bool) -> String {
    let mut text = body["error"].as_str().map_or_else(|| format!("emberd answered {status}"), str::to_owned);
    for detail in body["details"].as_array().into_iter().flatten() {
        let (path, message) = (detail["path"].as_str().unwrap_or(""), detail["message"].as_str().unwrap_or(""));
        text.push_str(&if path.is_empty() { format!("\n  {message}") } else { format!("\n  {path}: {message}") });
    }
    if status == StatusCode::UNAUTHORIZED && !has_token {
        text.push_str("\n  set EMBERD_TOKEN to a session token");
    }
    text
}

/// A text of an answer; empty where there is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}
