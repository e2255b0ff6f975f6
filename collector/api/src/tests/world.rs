//! An API on a free port, over a database of its own, and a client that can say anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use emberd_evaluators_hosts::Hosts;
use emberd_evaluators_jobs::Engine;
use emberd_model::clock::Still;
use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::{Batch, Flags, Offset, UnixNanos, trace};
use emberd_store::{Recording, Store, Writer};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use serde_json::Value;
use sqlx::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::contract::{Asked, Promised};
use crate::routes::Route;
use crate::{Api, Callers, Config, Rate, Readiness, View};

/// 2026-11-21T02:00:00Z.
pub(super) const NOW: UnixNanos = UnixNanos(1_795_226_400_000_000_000);

/// What each user may ask.
pub(super) const RATE: Rate = Rate { per_second: 1.0, burst: 500.0 };

/// The databases that all answers must be the same with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];
}

/// An engine of evaluation jobs without plugins and models.
pub(super) fn engine(store: &Store, home: &Path) -> Engine {
    let hosts = Arc::new(Hosts::new(BTreeMap::new(), home).unwrap());
    let config = emberd_evaluators_jobs::Config { poll: Duration::from_millis(20), ..Default::default() };
    Engine::new(config, store.clone(), Arc::new(Still::at(NOW)), hosts).unwrap()
}

/// What the other rooms tell, as the test says.
#[derive(Default)]
pub(super) struct Told {
    pub(super) reasons: Mutex<Vec<String>>,
}

impl View for Told {
    fn status(&self) -> Value {
        serde_json::json!({ "ledger": { "accepted_spans": 3 }, "database": { "told": "by the view" } })
    }

    fn ledger(&self) -> Value {
        serde_json::json!({ "accepted_spans": 3, "books": {} })
    }

    fn ready(&self) -> Readiness {
        Readiness {
            reasons: self.reasons.lock().unwrap().clone(),
            plugins: [("words".to_owned(), "ready"), ("shout".to_owned(), "down")].into(),
        }
    }

    fn metrics(&self, out: &mut String) {
        out.push_str("# HELP emberd_told What the test tells.\n# TYPE emberd_told gauge\nemberd_told 1\n");
    }
}

/// Caches in memory, of the usual size.
pub(super) fn caches() -> crate::Caching {
    let caches = emberd_cache::Caches::in_memory(Arc::new(Still::at(NOW)));
    crate::Caching { caches, users: 10_000, answers: 500 }
}

pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) store: Store,
    pub(super) told: Arc<Told>,
    pub(super) routes: Vec<Route>,
    pub(super) promised: Promised,
    pub(super) stop: CancellationToken,
    running: JoinSet<std::io::Result<()>>,
    recorded: Mutex<Offset>,
    /// The server's URL and the database's name.
    postgres: Option<(String, String)>,
    _home: tempfile::TempDir,
}

/// An answer: its status, headers and body.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// What was wrong with which parameter or field.
    pub(super) fn details(&self) -> Vec<(String, String)> {
        let body = self.json();
        assert_eq!(
            (self.status, &body["error"]),
            (StatusCode::BAD_REQUEST, &Value::from("Validation failed")),
            "{body}"
        );
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        body["details"].as_array().unwrap().iter().map(|one| (text(&one["path"]), text(&one["message"]))).collect()
    }
}

impl World {
    pub(super) async fn new(kind: Kind) -> Self {
        Self::with(kind, Callers::LocalAdministrator, &[]).await
    }

    pub(super) async fn with(kind: Kind, callers: Callers, cors: &[&str]) -> Self {
        Self::with_all(kind, callers, cors, crate::Flags::default(), None).await
    }

    pub(super) async fn with_flags(kind: Kind, callers: Callers, cors: &[&str], flags: crate::Flags) -> Self {
        Self::with_all(kind, callers, cors, flags, None).await
    }

    pub(super) async fn with_all(
        kind: Kind,
        callers: Callers,
        cors: &[&str],
        flags: crate::Flags,
        phoenix: Option<crate::proxy::Config>,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let postgres = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => Some(database().await),
        };
        let url = postgres.as_ref().map_or("sqlite".to_owned(), |(server, name)| beside(server, name));
        let config = emberd_store::Config { url, max_connections: 4, data_dir: home.path().into() };
        let store = Store::connect(config).await.unwrap();
        store.migrate_up().await.unwrap();
        let told = Arc::new(Told::default());
        let listen = "127.0.0.1:0".parse().unwrap();
        // Whoever a test asks from is behind this one.
        let trusted = vec![crate::Network::new("127.0.0.1".parse().unwrap(), 32).unwrap()];
        let cors = cors.iter().map(|&origin| origin.to_owned()).collect();
        let (reader, caches, handed) = (Default::default(), caches(), None);
        let summary = true;
        let config =
            Config { listen, handed, callers, cors, rate: RATE, flags, phoenix, trusted, reader, summary, caches };
        let engine = engine(&store, home.path());
        let api = Api::bind(config, store.clone(), engine.handle(), told.clone(), Arc::new(Still::at(NOW))).unwrap();
        let (address, routes) = (api.address(), api.routes().to_vec());
        let promised = Promised::new(api.document());
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(api.run(stop.clone()));
        running.spawn({
            let stop = stop.clone();
            async move {
                engine.run(stop).await;
                Ok(())
            }
        });
        Self {
            address,
            store,
            told,
            routes,
            promised,
            stop,
            running,
            recorded: Mutex::new(Offset(0)),
            postgres,
            _home: home,
        }
    }

    /// Stops the API, and drops its database.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap().unwrap();
        }
        self.store.close().await;
        if let Some((server, name)) = self.postgres {
            let mut server = sqlx::PgConnection::connect(&server).await.unwrap();
            let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
            sqlx::raw_sql(drop).execute(&mut server).await.unwrap();
        }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], body).await
    }

    /// Any request at all; `host` is right unless a header says otherwise.
    pub(super) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let exchange = async {
            let response = sender.send_request(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            Answer { status: parts.status, headers: parts.headers, text }
        };
        let answer = tokio::select! {
            biased;
            answer = exchange => answer,
            // The connection is driven here; it ends before the exchange only where it breaks.
            ended = async { connection.await.unwrap(); std::future::pending::<()>().await } => unreachable!("{ended:?}"),
        };
        self.promised.check(&Asked { method, path, headers, body }, &answer);
        answer
    }

    /// Sends these bytes and gives what comes back until the connection is closed.
    pub(super) async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        String::from_utf8_lossy(&back).into_owned()
    }

    /// Makes a prompt, and gives its id.
    pub(super) async fn prompt(&self, title: &str) -> String {
        let body = serde_json::json!({ "title": title, "content": "Say {what}." });
        let answer = self.post("/api/prompts", &body.to_string()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Records traces as the recorder does, and publishes them.
    pub(super) async fn record(&self, traces: &[Made]) {
        let from = *self.recorded.lock().unwrap();
        let spans: Vec<Span> = traces.iter().flat_map(Made::spans).collect();
        let count = u32::try_from(spans.len()).unwrap();
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec().into();
        let batch = Batch { offset: from, spans: count, received_at: NOW, key: 0, flags: Flags::default(), body };
        let recording = Recording {
            consumer: "recorder".into(),
            writer: Writer::new("test"),
            from,
            to: batch.end(),
            now: NOW,
            states: trace::fold([&batch], &Reading::default()),
            origins: Default::default(),
            booked: Default::default(),
            booking: Default::default(),
            prices: Arc::new(Prices::default()),
        };
        self.store.record(recording).await.unwrap();
        while self.store.publish(NOW).await.unwrap().more {}
        *self.recorded.lock().unwrap() = batch.end();
    }
}

/// A trace: a root that names a prompt, and an LLM call in it.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) number: u8,
    pub(super) prompt: String,
    pub(super) session: &'static str,
    pub(super) model: &'static str,
    pub(super) millis: u64,
    pub(super) fails: bool,
    /// When it begins, in minutes before [`NOW`].
    pub(super) minutes_ago: u64,
}

impl Made {
    pub(super) fn new(number: u8, prompt: &str) -> Self {
        let (prompt, session, model) = (prompt.to_owned(), "chat", "gpt-4o");
        Self { number, prompt, session, model, millis: 100, fails: false, minutes_ago: 5 + u64::from(number) }
    }

    fn spans(&self) -> [Span; 2] {
        let start = NOW.0 - self.minutes_ago * 60_000_000_000;
        let span = |id: u8, parent: &[u8], attributes: &[(&str, any_value::Value)]| Span {
            trace_id: vec![self.number; 16],
            span_id: vec![id; 8],
            parent_span_id: parent.to_vec(),
            name: "made".into(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + self.millis * 1_000_000,
            attributes: attributes.iter().map(|(key, value)| attribute(key, value.clone())).collect(),
            status: self.fails.then(|| Status { code: 2, message: "broken".into() }),
            ..Span::default()
        };
        let text = |text: &str| any_value::Value::StringValue(text.to_owned());
        let number = any_value::Value::IntValue;
        let root = [("prompt.id", text(&self.prompt)), ("session.id", text(self.session))];
        let call = [
            ("openinference.span.kind", text("LLM")),
            ("llm.model_name", text(self.model)),
            ("llm.token_count.prompt", number(10)),
            ("llm.token_count.completion", number(5)),
        ];
        [span(1, &[], &root), span(2, &[1; 8], &call)]
    }
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

async fn database() -> (String, String) {
    let server = std::env::var("EMBERD_TEST_POSTGRES").expect("set EMBERD_TEST_POSTGRES, or run make test");
    let name = format!("api_{}", uuid::Uuid::now_v7().simple());
    let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
    (server, name)
}

fn beside(server: &str, name: &str) -> String {
    format!("{}/{name}", server.rsplit_once('/').unwrap().0)
}
