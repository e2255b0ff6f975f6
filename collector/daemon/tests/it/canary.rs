//! Redaction: what is planted in spans is nowhere afterwards. The same spans through an emberd without rules, beside it, are found in
//! every place that is looked into: so the search can find.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use emberd_phoenix::process::{Phoenix, Ports};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use serde_json::{Value, json};

use super::client::Client;
use super::endpoint::Endpoint;
use super::evaluation;
use super::ledger::{forwarded, until};
use super::library::{Kind, Library};
use super::phoenix;
use super::process::Emberd;
use super::sink::Sink;

const RULES: &str = r#"
[[redact]]
name = "named"
attributes = ["**.hush", "metadata.hush"]
action = "drop"
[[redact]]
name = "user"
attributes = ["user.id"]
action = "hash"
key_file = "redact.key"
[[redact]]
name = "found"
find = ["email", "credit_card"]
patterns = ["canary-[0-9a-z]+"]
"#;

/// What is planted: a text that a pattern finds, and one that only the name of its attribute gives away.
struct Canary {
    found: String,
    named: String,
    prompt: String,
    trace: [u8; 16],
}

impl Canary {
    fn new(mark: u8) -> Self {
        let sign = char::from(b'a' + mark);
        let found = format!("canary-{}7d1e", String::from(sign).repeat(6));
        let named = format!("hushed{}", String::from(sign).repeat(8));
        Self { found, named, prompt: format!("prompt-{mark}"), trace: [mark + 1; 16] }
    }

    fn texts(&self) -> [&str; 2] {
        [&self.found, &self.named]
    }

    fn trace_hex(&self) -> String {
        self.trace.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Twenty places and more of a trace of two spans, the second of which the sink refuses.
    fn request(&self) -> Bytes {
        let (found, named) = (&*self.found, &*self.named);
        let json = json!({ "deep": [{ "of": found }], "hush": named, found: 1 }).to_string();
        let list = Any::ArrayValue(ArrayValue { values: vec![text(found)] });
        let pairs = Any::KvlistValue(KeyValueList {
            values: vec![pair("inner", text(found)), pair("hush", text(named)), pair(found, text("x"))],
        });
        let attributes = vec![
            pair("openinference.span.kind", text("LLM")),
            pair("llm.model_name", text("gpt-4o-mini")),
            pair("prompt.id", text(&self.prompt)),
            pair("session.id", text(found)),
            pair("user.id", text(named)),
            pair("input.value", text(&format!("before {found} after"))),
            pair("output.value", text(&json!({ "answer": json }).to_string())),
            pair("metadata", text(&json)),
            pair("llm.input_messages.0.message.content", text(found)),
            pair("tool.hush", text(named)),
            pair("list", any(list)),
            pair("pairs", any(pairs)),
            pair("bytes", any(Any::BytesValue(found.into()))),
            pair(found, text("a name")),
        ];
        let of = |name: &str| vec![pair(name, text(found)), pair("x.hush", text(named))];
        let root = Span {
            trace_id: self.trace.to_vec(),
            span_id: self.trace[..8].to_vec(),
            name: format!("call {found}"),
            kind: 1,
            start_time_unix_nano: 1_760_000_000_000_000_000,
            end_time_unix_nano: 1_760_000_001_000_000_000,
            trace_state: format!("k={found}"),
            attributes,
            status: Some(Status { message: format!("failed for {found}"), code: 2 }),
            events: vec![Event { name: found.into(), attributes: of("exception.message"), ..Event::default() }],
            links: vec![Link {
                trace_id: vec![9; 16],
                span_id: vec![9; 8],
                trace_state: found.into(),
                attributes: of("l"),
                ..Link::default()
            }],
            ..Span::default()
        };
        let refused = Span {
            // Phoenix knows a span by its id alone.
            span_id: vec![self.trace[0] + 100; 8],
            parent_span_id: root.span_id.clone(),
            name: "refused".into(),
            attributes: of("input.value"),
            ..root.clone()
        };
        let scope = InstrumentationScope {
            name: found.into(),
            version: found.into(),
            attributes: of("s"),
            ..InstrumentationScope::default()
        };
        let scope_spans = ScopeSpans { scope: Some(scope), spans: vec![root, refused], schema_url: found.into() };
        let resource = Resource { attributes: of("service.name"), ..Resource::default() };
        let resource_spans =
            ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans], schema_url: found.into() };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec().into()
    }

    /// A span whose id is too short: rejected, with a reason that is told and counted.
    fn rejected(&self) -> Bytes {
        let mut request = ExportTraceServiceRequest::decode(self.request()).unwrap();
        request.resource_spans[0].scope_spans[0].spans.truncate(1);
        request.resource_spans[0].scope_spans[0].spans[0].span_id = vec![1; 7];
        request.encode_to_vec().into()
    }
}

fn any(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(text: &str) -> AnyValue {
    any(Any::StringValue(text.into()))
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

fn holds(bytes: &[u8], what: &str) -> bool {
    memchr::memmem::find(bytes, what.as_bytes()).is_some()
}

/// The files below a directory that hold any of these.
pub fn found_in(dir: &Path, what: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(found_in(&path, what));
        } else if let Ok(bytes) = std::fs::read(&path)
            && what.iter().any(|what| holds(&bytes, what))
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Every table of a PostgreSQL database that holds any of these, bytes in hex included.
pub async fn found_in_postgres(url: &str, what: &[&str]) -> Vec<String> {
    use sqlx::Row as _;
    let pool = sqlx::PgPool::connect(url).await.unwrap();
    let tables = "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables \
        WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    let mut found = Vec::new();
    for row in sqlx::query(tables).fetch_all(&pool).await.unwrap() {
        let table: String = row.get(0);
        let sql = format!("SELECT coalesce(string_agg(t::text, ''), '') FROM {table} t");
        let dump: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap();
        let hex = |text: &&str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        if what.iter().any(|what| dump.contains(what) || dump.contains(&hex(what))) {
            found.push(table);
        }
    }
    pool.close().await;
    found
}

/// One emberd before a Phoenix, a sink and a model.
struct Story {
    library: Library,
    canary: Canary,
    endpoint: Endpoint,
    _sink: Sink,
}

impl Story {
    async fn new(kind: Kind, mark: u8, phoenix: &Phoenix, rules: bool) -> Self {
        let (mut library, canary, endpoint) =
            (Library::new(kind).await, Canary::new(mark), Endpoint::new(Duration::ZERO));
        let sink = Sink::new();
        let home = &mut library.home;
        home.set("EMBERD_PHOENIX_OTLP", &phoenix.otlp()).set("EMBERD_PHOENIX_URL", &phoenix.url());
        home.set("EMBERD_LLM_BASE_URL", &endpoint.url).set("EMBERD_LLM_JUDGE_MODEL", "gpt-4o-mini");
        sink.is_forwarded_to_by(home);
        sink.refuses(&["refused"]);
        if rules {
            let key = home.path().join("redact.key");
            std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
            home.configure(RULES);
        }
        Self { library, canary, endpoint, _sink: sink }
    }

    /// Sends, waits until all is where it goes, has it judged, and asks the API for all of it: what the API said.
    async fn run(&self, emberd: &Emberd) -> String {
        let made = reqwest::Client::new()
            .post(format!("{}/api/prompts", emberd.api()))
            .json(&json!({ "title": self.canary.prompt, "content": "{{input}}" }));
        let prompt: Value = made.send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
        let prompt = prompt["id"].as_str().unwrap();
        let mut client = Client::connect(emberd).await;
        client.send_grpc(self.canary.request()).await.unwrap();
        let partial = client.send_grpc(self.canary.rejected()).await.unwrap_err();
        assert!(partial.contains("partial success"), "{partial}");
        assert!(self.canary.texts().iter().all(|text| !partial.contains(text)), "{partial}");
        emberd.recorded().await;
        forwarded(emberd, "sink").await;
        until("Phoenix has it", async || {
            let status = emberd.get("/api/status").await;
            status["ledger"]["consumers"]["phoenix"]["verified"] == 2
        })
        .await;
        let run =
            ["eval", "run", "--prompt", &self.canary.prompt, "--traces", "5", "--evaluators", "coherence", "--json"];
        let row = evaluation::told(&self.library.home, &run).await;
        assert_eq!(row["status"], "completed", "{row:#}");
        assert!(self.endpoint.calls() > 0);
        let id = row["id"].as_str().unwrap().to_owned();
        let mut said = String::new();
        for path in [
            format!("/api/prompts/{prompt}/traces?limit=50"),
            format!("/api/traces/{}/decisions", self.canary.trace_hex()),
            format!("/api/evaluations/{id}"),
            format!("/api/evaluations/{id}/results?limit=50"),
            "/api/prompts".to_owned(),
            "/api/ledger".to_owned(),
            "/api/status".to_owned(),
        ] {
            let answer = reqwest::get(format!("{}{path}", emberd.api())).await.unwrap();
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            said += &answer.text().await.unwrap();
        }
        said
    }

    /// Where the canary is, by place.
    async fn places(&self, emberd: &Emberd, api: &str) -> Value {
        let what = self.canary.texts();
        let home = self.library.home.path();
        let metrics = reqwest::get(format!("{}/metrics", emberd.api())).await.unwrap().text().await.unwrap();
        let has = |text: &str| what.iter().any(|what| text.contains(what));
        let database = match self.library.url.as_str() {
            url if !url.is_empty() => found_in_postgres(url, &what).await,
            _ => found_in(home, &what).into_iter().filter(|path| path.contains("emberd.db")).collect(),
        };
        json!({
            "log": !found_in(&home.join("log"), &what).is_empty(),
            "quarantine": !found_in(&home.join("quarantine"), &what).is_empty(),
            "database": !database.is_empty(),
            "judge": has(&self.endpoint.heard()),
            "api": has(api),
            "said": has(&emberd.said()),
            "metrics": has(&metrics),
        })
    }
}

async fn the_canary_is_nowhere(kind: Kind, mark: u8, phoenix: &Phoenix, phoenix_dir: &Path) {
    let (with, without) =
        (Story::new(kind, mark, phoenix, true).await, Story::new(kind, mark + 1, phoenix, false).await);
    let (emberd, plain) = (with.library.home.start(), without.library.home.start());
    let (api, plain_api) = tokio::join!(with.run(&emberd), without.run(&plain));

    let found = without.places(&plain, &plain_api).await;
    for place in ["log", "quarantine", "database", "judge", "api"] {
        assert_eq!(found[place], true, "the search finds nothing in {place}: {found}");
    }
    let metrics = reqwest::get(format!("{}/metrics", emberd.api())).await.unwrap().text().await.unwrap();
    for rule in ["named", "user", "found"] {
        let counted = |line: &str| {
            line.starts_with(&format!("emberd_redacted_total{{rule=\"{rule}\"}} ")) && !line.ends_with(" 0")
        };
        assert!(metrics.lines().any(counted), "{rule}: {metrics}");
    }
    let left = with.places(&emberd, &api).await;
    assert!(left.as_object().unwrap().values().all(|found| found == false), "{left}");
    assert!(emberd.terminate().success() && plain.terminate().success());

    // Nowhere in the whole directory, whatever is in it: but for the configuration, which holds no canary either.
    let what = with.canary.texts();
    assert_eq!(found_in(with.library.home.path(), &what), Vec::<String>::new());
    assert_eq!(found_in(phoenix_dir, &what), Vec::<String>::new());
    assert!(!found_in(phoenix_dir, &[&without.canary.found]).is_empty(), "the search finds nothing in Phoenix");
    assert!(!found_in(phoenix_dir, &[&without.canary.named]).is_empty(), "the search finds nothing in Phoenix");
}

/// A secret in twenty places of a trace is afterwards in none of log, database, quarantine, Phoenix, judge's calls, API, logs, metrics.
#[tokio::test(flavor = "multi_thread")]
async fn a_redacted_canary_is_nowhere() {
    // Before the first client is made.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let phoenix = phoenix::started(dir.path(), Ports::free().unwrap()).await;
    the_canary_is_nowhere(Kind::Sqlite, 0, &phoenix, dir.path()).await;
    if std::env::var_os("EMBERD_TEST_POSTGRES").is_some() {
        the_canary_is_nowhere(Kind::Postgres, 2, &phoenix, dir.path()).await;
    }
}

/// `redact --try` shows what would be kept, and how often each rule was needed; a rule that cannot be is told with its line and key.
#[test]
fn rules_can_be_tried() {
    let canary = Canary::new(4);
    let home = super::process::Home::new();
    let key = home.path().join("redact.key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.configure(RULES);
    let file = home.path().join("export.pb");
    std::fs::write(&file, canary.request()).unwrap();
    let output = home.command(&["redact", "--try", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("  found\n") && said.contains("       2  spans"), "{said}");
    assert!(canary.texts().iter().all(|text| !holds(&output.stdout, text)));
    // What it prints is an export again, which comes out as it went in.
    let shown = home.path().join("export.json");
    std::fs::write(&shown, &output.stdout).unwrap();
    let again = home.command(&["redact", "--try", shown.to_str().unwrap(), "--protobuf"]).output().unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(holds(&again.stdout, "[redacted:found]"));

    home.configure("[[redact]]\nname = \"x\"\nfind = [\"emial\"]\npatterns = [\"(\"]\n");
    let output = home.command(&["check-config"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("emberd.toml:3") && said.contains("emberd.toml:4") && said.contains("[[redact]] find"),
        "{said}"
    );
}
