//! Plugins that misbehave, under the real binary and beside a load: their items fail, spans are acknowledged, and nothing is left of them.
//!
//! Not here: each of a hundred ways to misbehave (`evaluators/hosts/tests/it/abuse.rs`); what it costs in milliseconds (`benches/src/abuse.rs`).

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::made::Made;
use super::phoenix;
use super::process::{Emberd, Home};

/// Modes of `abusive.py`, and what becomes of their items: a class of errors, or scores.
const MODES: [(&str, Option<&str>); 7] = [
    // They flood: with a line that never ends, with answers of nothing, and with answers about others.
    ("line_of_1_gib", None),
    ("empty_for_ever", Some("plugin_fault")),
    ("too_many_results", Some("plugin_fault")),
    // They take all memory, and all processes.
    ("oom", Some("plugin_fault")),
    ("fork_bomb", Some("plugin_fault")),
    // They die, and lie.
    ("kill_own_group", Some("plugin_fault")),
    ("nan", Some("plugin_fault")),
];
/// They never answer: their jobs are cancelled, for the deadline is a minute.
const HANGING: [&str; 2] = ["hang", "busy_for_ever"];
const EXAMPLES: usize = 8;
const RSS_MIB_MAX: u64 = 256;

fn configuration() -> String {
    let evaluators = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../evaluators").canonicalize().unwrap();
    let (sdk, script) = (evaluators.join("plugins/sdk"), evaluators.join("hosts/tests/it/abusive.py"));
    let python = phoenix::venv().join("bin/python");
    let plugin = |mode: &str| {
        format!(
            "[plugins.{mode}]\ncommand = [{python:?}, {script:?}, \"{mode}\"]\nenv = {{ PYTHONPATH = {sdk:?}, PYTHONDONTWRITEBYTECODE = \"1\" }}\n"
        )
    };
    MODES.iter().map(|(mode, _)| *mode).chain(HANGING).map(plugin).collect()
}

/// Nine plugins that flood, hang, spin, take memory, fork, die and lie, each with a job, beside a steady load.
#[tokio::test(flavor = "multi_thread")]
async fn plugins_that_misbehave_cost_their_own_items_and_nothing_else() {
    let home = Home::new();
    home.configure(&configuration());
    let emberd = home.start();
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let mut client = Client::connect(&emberd).await;
    let load = tokio::spawn(async move {
        let (mut sent, mut slowest) = (0_u64, Duration::ZERO);
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stopped.changed() => return (sent, slowest),
            }
            let begun = Instant::now();
            client.send_grpc(Made::new(sent).requests[0].clone()).await.unwrap();
            slowest = slowest.max(begun.elapsed());
            sent += 1;
        }
    });

    let jobs = jobs(&emberd).await;
    let mut running = Vec::new();
    for (mode, id) in &jobs {
        match MODES.iter().find(|(known, _)| known == mode) {
            Some((_, class)) => ended_as_expected(&emberd, mode, id, *class).await,
            None => running.push(id),
        }
    }
    for id in running {
        let cancelled = post(&emberd, &format!("/api/evaluations/{id}/cancel"), &json!({})).await;
        assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    }
    let ready = emberd.get("/readyz").await;
    assert_eq!((&ready["ready"], ready["plugins"].as_object().unwrap().len()), (&json!(true), jobs.len()));
    stop.send(true).unwrap();
    let (sent, slowest) = load.await.unwrap();
    let rss = emberd.rss_max_mib();
    eprintln!("{sent} requests acknowledged beside the plugins, the slowest after {slowest:?}; {rss} MiB at most");
    assert!(sent >= 100, "{sent} requests");
    assert!(rss <= RSS_MIB_MAX, "{rss} MiB");
    emberd.recorded().await;
    emberd.sums_are_right(&home).await;
    assert!(!processes(&home).is_empty(), "those that never answer are still there");
    assert!(emberd.terminate().success());
    assert_eq!(processes(&home), Vec::<String>::new(), "they outlive emberd");
}

async fn post(emberd: &Emberd, path: &str, body: &Value) -> Value {
    let answer = reqwest::Client::new().post(format!("{}{path}", emberd.api())).json(body).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap()
}

/// A job on each plugin, once it is ready: of examples that all are what it takes badly.
async fn jobs(emberd: &Emberd) -> Vec<(&'static str, String)> {
    let prompt = post(emberd, "/api/prompts", &json!({ "title": "p", "content": "{{input}}" })).await;
    let example = |nr: usize| json!({ "id": format!("e{nr}"), "input": "?", "output": "poison" });
    let examples: Vec<Value> = (0..EXAMPLES).map(example).collect();
    let dataset = post(emberd, "/api/datasets", &json!({ "name": "d", "type": "custom", "data": examples })).await;
    let (since, mut jobs) = (Instant::now(), Vec::new());
    for mode in MODES.iter().map(|(mode, _)| *mode).chain(HANGING) {
        while emberd.get("/readyz").await["plugins"][mode] != "ready" {
            assert!(since.elapsed() < Duration::from_secs(120), "{mode} is not ready:\n{}", emberd.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let config = json!({ "evaluators": [format!("{mode}/x")] });
        let job = json!({ "promptId": prompt["id"], "datasetId": dataset["id"], "name": mode, "config": config });
        let row = post(emberd, "/api/evaluations", &job).await;
        jobs.push((mode, row["id"].as_str().unwrap().to_owned()));
    }
    jobs
}

/// Waits for a job's end: every item has an error of this class, or a score.
async fn ended_as_expected(emberd: &Emberd, mode: &str, id: &str, class: Option<&str>) {
    let since = Instant::now();
    let row = loop {
        let row = emberd.get(&format!("/api/evaluations/{id}")).await;
        if row["completed_at"].is_string() {
            break row;
        }
        assert!(since.elapsed() < Duration::from_secs(180), "{mode} is not over: {row:#}\n{}", emberd.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(row["status"], if class.is_some() { "failed" } else { "completed" }, "{mode}: {row:#}");
    let results = emberd.get(&format!("/api/evaluations/{id}/results")).await;
    let results = results["data"].as_array().unwrap();
    assert_eq!(results.len(), EXAMPLES, "{mode}");
    for one in results {
        assert_eq!((one["error_class"].as_str(), one["score"].is_null()), (class, class.is_some()), "{mode}: {one}");
    }
}

/// The commands of processes that were started for this emberd's plugins and still run.
fn processes(home: &Home) -> Vec<String> {
    let mark = format!("EMBERD_PLUGIN_SOCKET={}", home.path().display());
    let of = |process: std::fs::DirEntry| {
        let environment = std::fs::read(process.path().join("environ")).ok()?;
        let command = std::fs::read(process.path().join("cmdline")).ok()?;
        let is_ours = String::from_utf8_lossy(&environment).contains(&mark);
        (is_ours && !command.is_empty()).then(|| String::from_utf8_lossy(&command).replace('\0', " "))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}
