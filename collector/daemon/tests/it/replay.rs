//! What was accepted, sent on again: into an empty database, to another endpoint, to a fresh Phoenix; interrupted, killed, resumed.

use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use emberd_phoenix::process::Ports;
use serde_json::Value;

use super::client::{Client, Transport};
use super::fixtures;
use super::library::{Kind, Library};
use super::made::Made;
use super::phoenix;
use super::process::Home;
use super::sink::Sink;

/// A replay under way.
fn begun(home: &Home, arguments: &[&str]) -> Child {
    let mut command = home.command(&[&["replay", "--from", "1h", "--json"], arguments].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a replay says at its end.
fn ended(child: Child) -> (ExitStatus, Value) {
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}{said}"));
    (output.status, value)
}

fn whole(home: &Home, arguments: &[&str]) -> u64 {
    let (status, told) = ended(begun(home, arguments));
    assert!(status.success() && told["whole"] == true && told["missing"] == 0, "{told}");
    told["spans"].as_u64().unwrap()
}

fn kill(child: &Child, signal: &str) {
    let done = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}

/// Sends all fixtures and some made traces, and waits until they are recorded.
async fn filled(library: &Library, traces: u64) -> u64 {
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    for export in fixtures::all().iter().flat_map(|fixture| &fixture.requests) {
        client.send(Transport::Grpc, export).await.unwrap();
    }
    for body in (0..traces).flat_map(|number| Made::new(number).requests) {
        client.send_grpc(body).await.unwrap();
    }
    emberd.recorded().await;
    // Traces without a root have waited for it by then, and are in the tables.
    tokio::time::sleep(Duration::from_secs(4)).await;
    emberd.recorded().await;
    let status = emberd.get("/api/status").await;
    assert!(emberd.terminate().success());
    status["ledger"]["accepted_spans"].as_u64().unwrap()
}

/// Killed three times on its way and begun again, a replay into an empty database gives the tables that were there, row for row and
/// sketch for sketch, from the archive alone: the log is gone. Once more, into full tables, it changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_made_again_from_the_archive() {
    for kind in Kind::ALL {
        let mut library = Library::new(kind).await;
        let accepted = filled(&library, 300).await;
        let before = Tables::of(&library).await;
        assert!(
            before.rows.len() > 200 && before.rollups.len() > 3,
            "{} rows, {} rollups",
            before.rows.len(),
            before.rollups.len()
        );

        for dir in ["log", "cursors", "ledger"] {
            std::fs::remove_dir_all(library.home.path().join(dir)).unwrap();
        }
        library.emptied().await;
        let slow = ["--source", "archive", "--into", "recorder", "--rate", "400"];
        for _ in 0..3 {
            let child = begun(&library.home, &slow);
            tokio::time::sleep(Duration::from_millis(700)).await;
            kill(&child, "-KILL");
            assert!(!child.wait_with_output().unwrap().status.success());
        }
        assert_eq!(whole(&library.home, &slow), accepted);
        // Traces without a root get their rows from whoever runs.
        let emberd = library.home.start();
        tokio::time::sleep(Duration::from_secs(4)).await;
        emberd.recorded().await;
        assert!(emberd.terminate().success());
        before.are(&Tables::of(&library).await, kind);

        assert_eq!(whole(&library.home, &["--source", "archive", "--into", "recorder", "--rate", "0"]), accepted);
        before.are(&Tables::of(&library).await, kind);
    }
}

/// The library's tables, and the rollups behind them.
struct Tables {
    rows: Vec<Value>,
    summaries: Vec<Value>,
    rollups: Vec<Value>,
}

impl Tables {
    async fn of(library: &Library) -> Self {
        let (rows, summaries) = (library.traces().await, library.summaries().await);
        Self { rows, summaries, rollups: library.rollups().await }
    }

    fn are(&self, other: &Self, kind: Kind) {
        for (what, ours, theirs) in [
            ("rows", &self.rows, &other.rows),
            ("summaries", &self.summaries, &other.summaries),
            ("rollups", &self.rollups, &other.rollups),
        ] {
            assert_eq!(ours.len(), theirs.len(), "{what} on {kind:?}");
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert_eq!(ours, theirs, "{what} on {kind:?}");
            }
        }
    }
}

/// Interrupted by SIGINT on its way to an endpoint and begun again beside the running daemon, it delivers each span once; a prompt's
/// traces alone are all spans of theirs.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_gets_each_span_once() {
    let (sink, library) = (Sink::new(), Library::new(Kind::Sqlite).await);
    let accepted = filled(&library, 200).await;
    let emberd = library.home.start();
    let url = sink.url();
    let slow = ["--into", "otlp", &url, "--rate", "500"];
    let child = begun(&library.home, &slow);
    tokio::time::sleep(Duration::from_millis(800)).await;
    kill(&child, "-INT");
    let (status, told) = ended(child);
    assert!(!status.success() && told["whole"] == false, "{told}");
    let fed = told["spans"].as_u64().unwrap();
    assert!(fed > 0 && fed < accepted, "{fed} of {accepted}");
    assert_eq!(whole(&library.home, &slow), accepted);
    assert_eq!(sink.taken().values().sum::<u64>(), accepted);
    assert!(
        !library.home.path().join("replays").read_dir().unwrap().any(|_| true),
        "a replay that is done leaves nothing"
    );

    let other = Sink::new();
    let of_prompt = whole(&library.home, &["--into", "otlp", &other.url(), "--prompt", "made-first"]);
    let expected: usize = (0..200)
        .map(Made::new)
        .filter(|made| made.prompt == Some("made-first"))
        .map(|m| m.carried.iter().map(Vec::len).sum::<usize>())
        .sum();
    assert_eq!(of_prompt, expected as u64);
    emberd.sums_are_right(&library.home).await;
}

/// An hour into a fresh real Phoenix, interrupted and resumed: all of it is there, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_phoenix_is_filled() {
    let mut library = Library::new(Kind::Sqlite).await;
    filled(&library, 60).await;
    let phoenix = phoenix::started(&library.home.path().join("phoenix"), Ports::free().unwrap()).await;
    phoenix::point_at(&mut library, &phoenix);
    let child = begun(&library.home, &["--into", "phoenix", "--rate", "150"]);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    kill(&child, "-KILL");
    child.wait_with_output().unwrap();
    let since = Instant::now();
    whole(&library.home, &["--into", "phoenix", "--rate", "150"]);
    let sent = fixtures::all().into_iter().flat_map(|fixture| fixture.requests).map(|export| export.protobuf);
    let expected = sent.chain((0..60).flat_map(|number| Made::new(number).requests));
    let expected = expected.flat_map(|body| phoenix::span_ids(&body)).collect();
    let held = phoenix::held(&phoenix).await;
    assert_eq!(held, expected, "when it says that it is done, it is: after {:?}", since.elapsed());
}

/// Times and places that cannot be are refused, in words that say what to do.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused() {
    let library = Library::new(Kind::Sqlite).await;
    filled(&library, 1).await;
    for (arguments, word) in [
        (&["--into", "nowhere"][..], "expected phoenix, recorder, rule NAME, or otlp URL"),
        (&["--into", "rule", "none-such"], "there is no rule named"),
        (&["--into", "phoenix"], "set [phoenix] otlp"),
        (&["--into", "recorder", "--to", "yesterday"], "nor so long ago"),
        (&["--into", "recorder", "--to", "2h"], "--from is not before --to"),
    ] {
        let output = begun(&library.home, arguments).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word), "{arguments:?}: {said}");
    }
    let (status, told) = ended(begun(&library.home, &["--into", "recorder", "--dry-run"]));
    assert!(status.success() && told["spans"].as_u64().unwrap() > 50, "{told}");
}
