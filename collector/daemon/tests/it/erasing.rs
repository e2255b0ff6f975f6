//! `emberd erase`: what there was of somebody is gone from database, quarantine and the real Phoenix, and nothing of others is.

use std::process::Stdio;
use std::time::Duration;

use emberd_phoenix::process::{Phoenix, Ports};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use super::canary::{found_in, found_in_postgres};
use super::client::Client;
use super::ledger::{forwarded, until};
use super::library::{Kind, Library};
use super::made::text;
use super::phoenix;
use super::process::Emberd;
use super::sink::{self, Sink};

/// A trace of two spans of a user in a session, all of whose texts hold a word.
fn spans(nr: u8, user: &str, session: &str, word: &str) -> Vec<Span> {
    let root = Span {
        trace_id: vec![nr; 16],
        span_id: vec![nr; 8],
        name: format!("call {word}"),
        kind: 1,
        start_time_unix_nano: 1_760_000_000_000_000_000,
        end_time_unix_nano: 1_760_000_001_000_000_000,
        attributes: vec![
            text("openinference.span.kind", "LLM"),
            text("llm.model_name", "gpt-4o-mini"),
            text("prompt.id", "greeting"),
            text("user.id", user),
            text("session.id", session),
            text("input.value", &format!("my {word}")),
            text("output.value", &format!("your {word}")),
        ],
        ..Span::default()
    };
    let refused = Span {
        span_id: vec![nr + 100; 8],
        parent_span_id: vec![nr; 8],
        name: "refused".into(),
        attributes: vec![text("user.id", user), text("input.value", word)],
        ..root.clone()
    };
    vec![root, refused]
}

async fn erase(library: &Library, arguments: &[&str], code: i32) -> Value {
    let mut command = library.home.command(&[&["erase", "--json"], arguments].concat());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::String(said))
}

/// Before and after of a place.
fn counts(receipt: &Value, place: &str) -> [u64; 2] {
    ["before", "after"]
        .map(|when| receipt["places"][place][when].as_u64().unwrap_or_else(|| panic!("{place}: {receipt:#}")))
}

async fn arrived(emberd: &Emberd, spans: u64) {
    emberd.recorded().await;
    forwarded(emberd, "sink").await;
    until("Phoenix has it", async || {
        emberd.get("/api/status").await["ledger"]["consumers"]["phoenix"]["verified"] == spans
    })
    .await;
}

async fn somebody_is_erased(kind: Kind, mark: u8, phoenix: &Phoenix) {
    let (mut library, sink) = (Library::new(kind).await, Sink::new());
    library.home.set("EMBERD_PHOENIX_OTLP", &phoenix.otlp()).set("EMBERD_PHOENIX_URL", &phoenix.url());
    sink.is_forwarded_to_by(&mut library.home);
    sink.refuses(&["refused"]);
    let emberd = library.home.start();
    let (ada, bob) = (format!("adas-word-{mark}"), format!("bobs-word-{mark}"));
    let mut client = Client::connect(&emberd).await;
    for (nr, user, session, word) in [
        (mark + 1, "ada", format!("s-ada-{mark}"), &ada),
        (mark + 2, "ada", format!("s-other-{mark}"), &ada),
        (mark + 3, "bob", format!("s-bob-{mark}"), &bob),
        (mark + 4, "eve", format!("s-eve-{mark}"), &"beside".to_owned()),
    ] {
        client.send_grpc(sink::request(Some("shop"), spans(nr, user, &session, word))).await.unwrap();
    }
    arrived(&emberd, 8).await;
    let database = async |word: &str| match library.url.as_str() {
        "" => found_in(library.home.path(), &[word]).into_iter().filter(|path| path.contains("emberd.db")).collect(),
        url => found_in_postgres(url, &[word]).await,
    };
    assert!(!database(&ada).await.is_empty() && !database(&bob).await.is_empty());

    // A look takes nothing away.
    let looked = erase(&library, &["--user", "ada", "--dry-run"], 0).await;
    assert_eq!(looked["places"]["prompt_traces"], json!({ "before": 2 }), "{looked:#}");
    assert!(!library.home.path().join("receipts").exists());

    let receipt = erase(&library, &["--user", "ada"], 0).await;
    for (place, before) in [("prompt_traces", 2), ("trace states", 2), ("quarantine", 2), ("phoenix traces", 2)] {
        assert_eq!(counts(&receipt, place), [before, 0], "{place}: {receipt:#}");
    }
    assert_eq!((&receipt["asked"]["name"], &receipt["log"]["spans"]), (&Value::Null, &json!(4)), "{receipt:#}");
    assert!(receipt["log"]["until"].is_string() && receipt["done"].is_string(), "{receipt:#}");
    let kept: Vec<_> = std::fs::read_dir(library.home.path().join("receipts")).unwrap().collect();
    assert_eq!(kept.len(), 1);

    // What is asked again finds nothing.
    let again = erase(&library, &["--user", "ada"], 0).await;
    for (place, counts) in again["places"].as_object().unwrap() {
        assert_eq!((&counts["before"], &counts["after"]), (&json!(0), &json!(0)), "{place}: {again:#}");
    }
    let traces = library.traces().await;
    assert_eq!(traces.len(), 2, "{traces:?}");

    // A session and a trace, the same way.
    let receipt = erase(&library, &["--session", &format!("s-bob-{mark}"), "--plain"], 0).await;
    assert_eq!(counts(&receipt, "prompt_traces"), [1, 0]);
    assert_eq!(receipt["asked"]["name"], json!(format!("s-bob-{mark}")));
    let receipt = erase(&library, &["--trace", &"ee".repeat(16)], 0).await;
    assert_eq!(counts(&receipt, "prompt_traces"), [0, 0]);
    emberd.sums_are_right(&library.home).await;
    assert!(emberd.terminate().success());

    // Nothing is left of either: SQLite may hold old pages, so they are written anew first.
    if kind == Kind::Sqlite {
        use sqlx::Connection as _;
        let file = library.home.path().join("emberd.db");
        let mut db = sqlx::SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
        sqlx::raw_sql("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut db).await.unwrap();
        db.close().await.unwrap();
    }
    for word in [&ada, &bob] {
        assert_eq!(database(word).await, Vec::<String>::new(), "{word}");
        assert_eq!(found_in(&library.home.path().join("quarantine"), &[word]), Vec::<String>::new(), "{word}");
    }
    for word in [&ada, &bob] {
        assert_eq!(held_by_phoenix(phoenix, word).await, 0, "{word}");
    }
    // The search can find: what was sent beside them.
    assert!(held_by_phoenix(phoenix, "beside").await > 0);
}

/// How many spans of all projects hold a word, as Phoenix shows them.
async fn held_by_phoenix(phoenix: &Phoenix, word: &str) -> usize {
    let get = async |url: String| reqwest::get(url).await.unwrap().json::<Value>().await.unwrap();
    let projects = get(format!("{}/v1/projects?limit=100", phoenix.url())).await;
    let mut held = 0;
    for project in projects["data"].as_array().unwrap() {
        let id = project["id"].as_str().unwrap();
        let page = get(format!("{}/v1/projects/{id}/spans?limit=1000", phoenix.url())).await;
        held += page["data"].as_array().unwrap().iter().filter(|span| span.to_string().contains(word)).count();
        let sessions = get(format!("{}/v1/projects/{id}/sessions?limit=100", phoenix.url())).await;
        held += sessions["data"].as_array().into_iter().flatten().filter(|one| one.to_string().contains(word)).count();
    }
    held
}

/// Somebody's traces are gone from tables, quarantine and Phoenix; those of others are there until they are asked for.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_erased_everywhere() {
    // Before the first client is made.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let phoenix = phoenix::started(dir.path(), Ports::free().unwrap()).await;
    somebody_is_erased(Kind::Sqlite, 10, &phoenix).await;
    if std::env::var_os("EMBERD_TEST_POSTGRES").is_some() {
        somebody_is_erased(Kind::Postgres, 20, &phoenix).await;
    }
}

/// Nothing goes while a consumer is behind that would bring it back: the command waits, and says who it is.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_while_somebody_is_behind() {
    let (mut library, sink) = (Library::new(Kind::Sqlite).await, Sink::new());
    sink.is_forwarded_to_by(&mut library.home);
    sink.goes_away(true);
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    client.send_grpc(sink::request(Some("shop"), spans(1, "ada", "s", "word"))).await.unwrap();
    emberd.recorded().await;
    let said = erase(&library, &["--user", "ada", "--wait", "1"], 1).await;
    assert!(said.as_str().unwrap().contains("sink has 2 spans to go"), "{said}");
    assert_eq!(library.traces().await.len(), 1);
    sink.goes_away(false);
    let receipt = erase(&library, &["--user", "ada"], 0).await;
    assert_eq!(counts(&receipt, "prompt_traces"), [1, 0]);
    assert!(emberd.terminate().success());
}

/// The receipts: how many were begun, and how many of them are done.
fn receipts(library: &Library) -> (usize, usize) {
    let files = std::fs::read_dir(library.home.path().join("receipts")).into_iter().flatten();
    let read =
        |file: std::fs::DirEntry| -> Value { serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap() };
    let all: Vec<Value> =
        files.flatten().filter(|file| file.file_name().to_string_lossy().ends_with(".json")).map(read).collect();
    (all.len(), all.iter().filter(|receipt| receipt["done"].is_string()).count())
}

/// Killed wherever it is, later each time, and given again until it comes to its end: nothing is left, whatever the others took away.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_killed_is_given_again() {
    let (mut library, sink) = (Library::new(Kind::Sqlite).await, Sink::new());
    library.home.set("EMBERD_ARCHIVE_EVERY", "1s");
    sink.is_forwarded_to_by(&mut library.home);
    sink.refuses(&["refused"]);
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    for nr in 1..=60 {
        client.send_grpc(sink::request(Some("shop"), spans(nr, "ada", "s-ada", "adas-word"))).await.unwrap();
    }
    client.send_grpc(sink::request(Some("shop"), spans(61, "bob", "s-bob", "bobs-word"))).await.unwrap();
    emberd.recorded().await;
    forwarded(&emberd, "sink").await;

    let mut killed = 0;
    let receipt = loop {
        let mut command = library.home.command(&["erase", "--json", "--user", "ada"]);
        let mut erase = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(40 + 90 * killed)).await;
        if let Some(status) = erase.try_wait().unwrap() {
            let output = erase.wait_with_output().unwrap();
            assert!(status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            break serde_json::from_slice::<Value>(&output.stdout).unwrap();
        }
        erase.kill().unwrap();
        erase.wait().unwrap();
        killed += 1;
    };
    let (begun, done) = receipts(&library);
    assert!(begun > done && done > 0, "no kill met it at work: {killed} kills, {begun} begun, {done} done");
    for (place, counts) in receipt["places"].as_object().unwrap() {
        assert_eq!(counts["after"], 0, "{place}: {receipt:#}");
    }
    // What a killed one asked of emberd is done too, and takes nothing else.
    let again = erase(&library, &["--user", "ada"], 0).await;
    for (place, counts) in again["places"].as_object().unwrap() {
        assert_eq!(counts["before"], 0, "{place}: {again:#}");
    }
    let of_bob = erase(&library, &["--session", "s-bob", "--dry-run"], 0).await;
    for (place, before) in [("prompt_traces", 1), ("archive", 2), ("quarantine", 1)] {
        assert_eq!(of_bob["places"][place]["before"], before, "{place}: {of_bob:#}");
    }
    emberd.sums_are_right(&library.home).await;
    assert!(emberd.terminate().success());
    library.home.ledger_is_right();
}
