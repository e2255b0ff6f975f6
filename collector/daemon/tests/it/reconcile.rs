//! What was damaged behind emberd's back is found and healed: rollups, rows, and what Phoenix lost.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use emberd_phoenix::process::{Phoenix, Ports};
use serde_json::{Value, json};

use super::evaluation::told;
use super::library::{Kind, Library};
use super::made::Made;
use super::phoenix;
use super::process::{Emberd, Home};
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

/// What a reconciliation must come to, for as long as Phoenix is still being told.
async fn comes_to(home: &Home, part: &str, compared: u64) {
    let since = Instant::now();
    loop {
        let (status, told) = reconcile(home, &["--only", part]);
        if status.success() && told[part]["compared"] == compared {
            return;
        }
        assert!(since.elapsed() < super::process::PATIENCE, "{told:#}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn delete(phoenix: &Phoenix, path: &str) {
    let answer = reqwest::Client::new().delete(format!("{}/v1/{path}", phoenix.url())).send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
}

/// Rules for all traffic, one of traces and one of their roots.
async fn with_rules(emberd: &Emberd) {
    for (name, annotate, budget) in [("quick", "trace", 2_500), ("done", "span", 5_000)] {
        let evaluators = json!([{ "name": "latency_budget", "config": { "max_ms": budget } }]);
        let rule = json!({ "name": name, "config": { "annotate": annotate, "evaluators": evaluators } });
        let put = reqwest::Client::new().post(format!("{}/api/evaluation-rules", emberd.api())).json(&rule);
        let put = put.send().await.unwrap();
        assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
    }
    // A new consumer begins with what comes from now on, once it has read its rules.
    tokio::time::sleep(Duration::from_secs(7)).await;
}

/// An evaluation of two examples that Phoenix is told of: the experiment's id there.
async fn with_experiment(home: &Home, emberd: &Emberd) -> String {
    let prompt = json!({ "title": "capitals", "content": "{{input}}" });
    let made = reqwest::Client::new().post(format!("{}/api/prompts", emberd.api())).json(&prompt).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.status());
    let file = home.path().join("capitals.jsonl");
    let line = |id| json!({ "id": id, "input": "where?", "output": "Rome", "reference": "Rome" }).to_string();
    std::fs::write(&file, [line("a"), line("b")].join("\n")).unwrap();
    told(home, &["dataset", "import", file.to_str().unwrap(), "--json"]).await;
    let job = json!({ "evaluators": ["exact_match"] }).to_string();
    let run = ["eval", "run", "--prompt", "capitals", "--dataset", "capitals", "--job", &job, "--json"];
    let id = told(home, &run).await["id"].as_str().unwrap().to_owned();
    let since = Instant::now();
    loop {
        let row = told(home, &["eval", "show", &id, "--json"]).await;
        match row["phoenix_eval_id"].as_str().unwrap_or_else(|| panic!("{row:#}")) {
            local if local.starts_with("local:") => {}
            there => return there.to_owned(),
        }
        assert!(since.elapsed() < super::process::PATIENCE, "{row:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Spans, scores and an experiment that were deleted in Phoenix are missed, and it has them again.
#[tokio::test(flavor = "multi_thread")]
async fn what_phoenix_lost_it_gets_again() {
    const TRACES: u64 = 20;
    let mut library = Library::new(Kind::Sqlite).await;
    let phoenix = phoenix::started(&library.home.path().join("phoenix"), Ports::free().unwrap()).await;
    phoenix::point_at(&mut library, &phoenix);
    let (emberd, home) = (library.home.start(), &library.home);
    with_rules(&emberd).await;
    let mut client = Client::connect(&emberd).await;
    for body in (0..TRACES).flat_map(|number| Made::new(number).requests) {
        client.send_grpc(body).await.unwrap();
    }
    let experiment = with_experiment(home, &emberd).await;
    super::ledger::until("Phoenix has it", async || {
        let status = emberd.get("/api/status").await;
        status["ledger"]["consumers"]["phoenix"]["verified"] == status["ledger"]["accepted_spans"]
    })
    .await;
    let all = held(&phoenix).await;
    comes_to(home, "scores", 2 * TRACES).await;
    comes_to(home, "evaluations", 1).await;

    let gone: Vec<&String> = all.iter().take(7).collect();
    for span in &gone {
        delete(&phoenix, &format!("spans/{span}")).await;
    }
    delete(&phoenix, &format!("experiments/{experiment}")).await;
    let projects: Value = reqwest::get(format!("{}/v1/projects", phoenix.url())).await.unwrap().json().await.unwrap();
    for project in projects["data"].as_array().unwrap() {
        let of = format!("projects/{}/trace_annotations", project["id"].as_str().unwrap());
        delete(&phoenix, &format!("{of}?identifier=emberd:quick&delete_all=true")).await;
    }
    assert_eq!(held(&phoenix).await.len(), all.len() - gone.len());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (status, told) = reconcile(home, &["--only", "phoenix,evaluations,scores"]);
    assert!(!status.success() && told["phoenix"]["missing"] == gone.len(), "{told:#}");
    assert_eq!((&told["evaluations"]["missing"], &told["scores"]["different"]), (&json!(1), &json!(0)), "{told:#}");
    // Of the spans that are gone, those of roots had a score each.
    assert!(told["scores"]["missing"].as_u64() >= Some(TRACES), "{told:#}");

    let (status, told) = reconcile(home, &["--only", "phoenix,evaluations,scores", "--fix"]);
    assert!(status.success(), "{told:#}");
    assert_eq!(held(&phoenix).await, all);
    comes_to(home, "phoenix", all.len() as u64).await;
    comes_to(home, "scores", 2 * TRACES).await;
    comes_to(home, "evaluations", 1).await;
    assert!(emberd.terminate().success());
}
