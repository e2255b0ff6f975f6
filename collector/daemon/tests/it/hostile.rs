//! What arrives is hostile, or somebody else uses the database: rows are written all the same.

use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, status::StatusCode};
use prost::Message;
use serde_json::Value;

use super::books::{Books, load};
use super::client::Client;
use super::library::{Kind, Library};
use super::made::{Made, PROMPTS, text};
use super::process::Emberd;

/// A failed call whose every text is this one.
fn request(trace: u8, said: &str) -> Bytes {
    let named = ["llm.model_name", "session.id", "user.id", "prompt.id", "input.value", "output.value", "metadata"];
    let mut attributes = vec![text("openinference.span.kind", "LLM")];
    attributes.extend(named.map(|name| text(name, said)));
    attributes.push(text("tag.tags", &format!("[\"{said}\"]")));
    let span = Span {
        trace_id: vec![trace; 16],
        span_id: vec![trace; 8],
        name: said.into(),
        start_time_unix_nano: 1_710_108_000_000_000_000,
        end_time_unix_nano: 1_710_108_001_000_000_000,
        attributes,
        status: Some(Status { code: StatusCode::Error.into(), message: said.into() }),
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
        .encode_to_vec()
        .into()
}

/// Each of these texts becomes a row, and so does an honest trace after them.
async fn rows_of(kind: Kind, texts: &[String]) -> (Library, Emberd) {
    let library = Library::new(kind).await;
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    for (n, said) in texts.iter().enumerate() {
        client.send_grpc(request(n as u8 + 1, said)).await.unwrap();
    }
    client.send_grpc(Made::new(0).requests[0].clone()).await.unwrap();
    emberd.recorded().await;
    assert_eq!(library.traces().await.len(), texts.len() + 1, "{kind:?}");
    let status = emberd.get("/api/status").await;
    let recorder = &status["ledger"]["consumers"]["recorder"];
    assert_eq!((&recorder["quarantined"], &recorder["lost"]), (&0.into(), &0.into()), "{kind:?} {recorder:#}");
    assert_eq!(recorder["failures"], serde_json::json!({}), "{kind:?}");
    emberd.sums_are_right(&library.home).await;
    (library, emberd)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// PostgreSQL takes no NUL in a text or in JSON, and refuses the whole statement for one (kodus-ai#1683). A row's texts lose it before
/// they get there: plain, escaped once and escaped twice, and beside surrogates that belong together and that do not.
#[tokio::test(flavor = "multi_thread")]
async fn kodus_1683_nul_stops_no_row() {
    let texts =
        ["a\0b", "{\"a\\u0000b\": \"c\\u0000d\"}", "\\u0000", "\\\\u0000", "[\"\\ud800\", \"\\ud83d\\ude00\"]", "\0"];
    for kind in Kind::ALL {
        let (library, emberd) = rows_of(kind, &texts.map(str::to_owned)).await;
        for row in library.traces().await {
            assert!(!has_nul(&row), "{row}");
        }
        assert!(emberd.terminate().success());
    }
}

/// A text of which a database's protocol cannot say the length (RUSTSEC-2024-0363, launchbadge/sqlx#3440: beyond 4 GiB the length
/// wraps, and the rest is read as commands) never gets near it: of the largest text that a request can carry some KiB reach the database.
#[tokio::test(flavor = "multi_thread")]
async fn sqlx_3440_no_text_is_long_enough_for_a_length_to_wrap() {
    for kind in Kind::ALL {
        // Ten copies of it are in the request, which may have 64 MiB.
        let (library, emberd) = rows_of(kind, &["long ".repeat(1_200_000)]).await;
        let rows = library.traces().await;
        let longest = rows.iter().map(|row| row.to_string().len()).max().unwrap();
        assert!(longest < 128 << 10, "{kind:?}: a row of {longest} bytes");
        assert!(emberd.terminate().success());
    }
}

/// Another program writes to the same SQLite file and reads in long transactions meanwhile. A transaction that begins with a read and
/// then wants to write fails at once then, without waiting (SQLITE_BUSY_SNAPSHOT; profilarr#519: writes lost). emberd's begin
/// as writers and wait: not one fails.
#[tokio::test(flavor = "multi_thread")]
async fn profilarr_519_a_neighbour_on_the_file_makes_no_write_fail() {
    use sqlx::Connection;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
    let library = Library::new(Kind::Sqlite).await;
    let emberd = library.home.start();
    let mut books = Books::default();
    books.make_prompt(&emberd, PROMPTS[0]).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let options = SqliteConnectOptions::new()
        .filename(library.home.path().join("emberd.db"))
        .busy_timeout(Duration::from_secs(30));
    let neighbour = tokio::task::JoinSet::from_iter([false, true].map(|writes| {
        let (options, stopped) = (options.clone(), stopped.clone());
        async move {
            let mut db = SqliteConnection::connect_with(&options).await.unwrap();
            let mut transactions = 0_u64;
            while !*stopped.borrow() {
                let statements = if writes {
                    "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS neighbour (n); INSERT INTO neighbour VALUES (1); COMMIT"
                } else {
                    "BEGIN; SELECT count(*) FROM prompt_traces"
                };
                sqlx::raw_sql(statements).execute(&mut db).await.unwrap();
                tokio::time::sleep(Duration::from_millis(if writes { 3 } else { 50 })).await;
                if !writes {
                    sqlx::raw_sql("COMMIT").execute(&mut db).await.unwrap();
                }
                transactions += 1;
            }
            transactions
        }
    }));
    let client = Client::connect(&emberd).await;
    let since = Instant::now();
    let sender = load(client, 0.., Duration::from_millis(1), stopped);
    let stop_soon = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        stop.send(true).unwrap();
    };
    let (sent, ()) = tokio::join!(sender, stop_soon);
    books.take(sent);
    let transactions = neighbour.join_all().await;
    emberd.recorded().await;
    let status = emberd.get("/api/status").await;
    assert_eq!(status["ledger"]["consumers"]["recorder"]["failures"], serde_json::json!({}), "{}", emberd.said());
    let tally = books.check(&library, emberd).await;
    println!("{tally:?} beside {transactions:?} transactions of others in {:?}", since.elapsed());
    assert_eq!((tally.lost, tally.doubled, tally.unknown_requests), (0, 0, 0));
    assert!(transactions.iter().all(|&n| n > 10), "{transactions:?}");
}
