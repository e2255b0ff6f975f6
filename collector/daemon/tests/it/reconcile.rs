//! What was damaged behind emberd's back is found and healed: rollups, rows, and what Phoenix lost.

use std::process::ExitStatus;
use std::time::Duration;

use emberd_phoenix::process::Ports;
use serde_json::Value;

use super::library::{Kind, Library};
use super::made::Made;
use super::phoenix;
use super::process::Home;
use super::{client::Client, phoenix::held};

fn reconcile(home: &Home, arguments: &[&str]) -> (ExitStatus, Value) {
    let output = home
        .command(&[&["reconcile", "--since", "5000d", "--until", "1s", "--json"], arguments].concat())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    (output.status, told)
}

/// Whether nothing is wrong.
fn is_right(home: &Home) -> bool {
    let (status, told) = reconcile(home, &["--only", "rollups,traces"]);
    assert!(
        told["rollups"]["compared"].as_u64() > Some(1) && told["traces"]["compared"].as_u64() > Some(100),
        "{told:#}"
    );
    assert_eq!(status.success(), told["rollups"]["different"] == 0 && told["traces"]["missing"] == 0, "{told:#}");
    status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_wrong_are_set_right() {
    for kind in Kind::ALL {
        let library = Library::new(kind).await;
        let emberd = library.home.start();
        let mut client = Client::connect(&emberd).await;
        for body in (0..200).flat_map(|number| Made::new(number).requests) {
            client.send_grpc(body).await.unwrap();
        }
        emberd.recorded().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (rows, rollups) = (library.traces().await, library.rollups().await);
        assert!(is_right(&library.home), "{kind:?}");

        let trace = rows[5]["phoenix_trace_id"].as_str().unwrap();
        library.execute(&format!("DELETE FROM prompt_traces WHERE phoenix_trace_id = '{trace}'")).await;
        let table = if kind == Kind::Sqlite { "emberd_rollups" } else { "emberd.rollups" };
        library.execute(&format!("UPDATE {table} SET error = error + 3 WHERE resolution = 'h'")).await;
        assert!(!is_right(&library.home), "{kind:?}");

        let (status, told) = reconcile(&library.home, &["--only", "rollups,traces", "--fix"]);
        assert!(status.success(), "{kind:?}: {told:#}");
        assert_eq!(told["traces"]["missing"], 1, "{told:#}");
        assert!(is_right(&library.home), "{kind:?}");
        let healed = library.traces().await;
        assert_eq!(healed.len(), rows.len());
        assert_eq!(healed, rows, "{kind:?}");
        assert_eq!(library.rollups().await, rollups, "{kind:?}");
        emberd.sums_are_right(&library.home).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_phoenix_lost_it_gets_again() {
    let mut library = Library::new(Kind::Sqlite).await;
    let phoenix = phoenix::started(&library.home.path().join("phoenix"), Ports::free().unwrap()).await;
    phoenix::point_at(&mut library, &phoenix);
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    for body in (0..20).flat_map(|number| Made::new(number).requests) {
        client.send_grpc(body).await.unwrap();
    }
    let since = std::time::Instant::now();
    loop {
        let status = emberd.get("/api/status").await;
        let ledger = &status["ledger"]["consumers"]["phoenix"];
        if ledger["verified"].as_u64() == status["ledger"]["accepted_spans"].as_u64() {
            break;
        }
        assert!(since.elapsed() < super::process::PATIENCE, "not verified: {status:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let all = held(&phoenix).await;
    let http = reqwest::Client::new();
    let gone: Vec<&String> = all.iter().take(7).collect();
    for span in &gone {
        let answer = http.delete(format!("{}/v1/spans/{span}", phoenix.url())).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }
    assert_eq!(held(&phoenix).await.len(), all.len() - gone.len());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (status, told) = reconcile(&library.home, &["--only", "phoenix"]);
    assert!(!status.success() && told["phoenix"]["missing"] == gone.len(), "{told:#}");
    let (status, told) = reconcile(&library.home, &["--only", "phoenix", "--fix"]);
    assert!(status.success(), "{told:#}");
    assert_eq!(held(&phoenix).await, all);
}
