//! SIGTERM: what is inside is answered truly, what was acknowledged is recorded, and the exit is clean.

use super::client::Client;
use super::kill::Made;
use super::library::{Kind, Library};

/// Under load, SIGTERM ends the process with 0; everything acknowledged before it is in the tables after the next start.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_loses_nothing() {
    let library = Library::new(Kind::Sqlite).await;
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    let load = tokio::spawn(async move {
        let mut acked = Vec::new();
        for number in (0..).step_by(3) {
            match client.send_grpc(Made::new(number).requests[0].clone()).await {
                Ok(()) => acked.push(number),
                Err(refusal) => return (acked, refusal),
            }
        }
        unreachable!("the load ends when emberd does")
    });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let status = tokio::task::spawn_blocking(|| emberd.terminate()).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(!library.home.path().join("run.json").exists(), "run.json outlives the process");
    let (acked, _) = load.await.unwrap();
    assert!(!acked.is_empty());

    let emberd = library.home.start();
    emberd.recorded().await;
    let rows = library.traces().await;
    let known: std::collections::BTreeSet<&str> =
        rows.iter().map(|row| row["phoenix_trace_id"].as_str().unwrap()).collect();
    for number in &acked {
        assert!(known.contains(Made::new(*number).trace_hex().as_str()), "trace {number} of {} is lost", acked.len());
    }
}

/// A second emberd on the same data directory refuses to start and says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_is_refused() {
    let library = Library::new(Kind::Sqlite).await;
    let first = library.home.start();
    let second = library.home.command(&["serve"]).output().unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another process uses the log"), "{said}");
    assert!(first.terminate().success());
}

/// A database that is away when emberd starts holds no span up; what was taken meanwhile is recorded once it is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_holds_no_span_up() {
    let mut library = Library::new(Kind::Postgres).await;
    library.home.set("EMBERD_STORE_URL", "postgres://emberd@127.0.0.1:9/nowhere");
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    for number in (0..30).step_by(3) {
        client.send_grpc(Made::new(number).requests[0].clone()).await.unwrap();
    }
    let status = emberd.get("/api/status").await;
    assert_eq!(status["ledger"]["consumers"]["recorder"]["pending"], 20, "{status:#}");
    assert!(emberd.terminate().success());
    library.point_home_at_database();
    let emberd = library.home.start();
    emberd.recorded().await;
    assert_eq!(library.traces().await.len(), 10);
}

/// SIGINT ends it cleanly and in time while everything that it waits for is stuck: the database is not there, one endpoint takes
/// connections and says nothing, the other is not there. Vector's disk buffer looped and ignored SIGINT (vectordotdev/vector#17644).
#[tokio::test(flavor = "multi_thread")]
async fn vector_17644_sigint_ends_it_whoever_is_stuck() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut library = Library::new(Kind::Postgres).await;
    library.home.set("EMBERD_STORE_URL", "postgres://emberd@127.0.0.1:9/nowhere");
    let forward = format!(
        "[{{ name = \"mute\", url = \"grpc://{}\" }}, {{ name = \"away\", url = \"http://127.0.0.1:9/v1/traces\" }}]",
        mute.local_addr().unwrap()
    );
    library.home.set("EMBERD_FORWARD", &forward);
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    for number in (0..300).step_by(3) {
        client.send_grpc(Made::new(number).requests[0].clone()).await.unwrap();
    }
    emberd.signal("INT");
    let status = tokio::task::spawn_blocking(|| emberd.ended()).await.unwrap();
    assert!(status.success(), "{status}");
    drop(mute);
    library.point_home_at_database();
    library.home.set("EMBERD_FORWARD", "[]");
    let emberd = library.home.start();
    emberd.recorded().await;
    assert_eq!(library.traces().await.len(), 100);
}
