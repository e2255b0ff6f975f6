//! Evaluations by the command line: a file comes in, built-ins and a judge score it, a kill -9 in between costs nothing twice.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use super::endpoint::Endpoint;
use super::process::Home;
use super::sink;

/// What a command prints as JSON; it must succeed.
pub async fn told(home: &Home, arguments: &[&str]) -> Value {
    let mut command = home.command(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: not JSON; {said}"))
}

/// A JSONL file is imported and judged; emberd is killed in the middle, and each item ends once, each answer is paid once.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_judged_over_a_kill() {
    let endpoint = Endpoint::new(Duration::from_millis(30));
    let mut home = Home::new();
    home.set("EMBERD_LLM_BASE_URL", &endpoint.url).set("EMBERD_LLM_JUDGE_MODEL", "gpt-4o-mini");
    let emberd = home.start();
    let http = reqwest::Client::new();
    let made = http
        .post(format!("{}/api/prompts", emberd.api()))
        .json(&json!({ "title": "capitals", "content": "{{input}}" }));
    assert!(made.send().await.unwrap().status().is_success());

    let file = home.path().join("capitals.jsonl");
    let line = |n: u32| {
        let output = if n.is_multiple_of(4) { "wrong".to_owned() } else { format!("city {n}") };
        json!({ "id": format!("e{n}"), "input": format!("capital {n}?"), "output": output, "reference": format!("city {n}") })
    };
    let text: String = (0..200).map(|n| format!("{}\n", line(n))).collect();
    std::fs::write(&file, text).unwrap();
    let dataset = told(&home, &["dataset", "import", file.to_str().unwrap(), "--json"]).await;
    assert_eq!((&dataset["name"], &dataset["examples"]), (&json!("capitals"), &json!(200)));

    let run = ["eval", "run", "--prompt", "capitals", "--dataset", "capitals", "--evaluators", "exact_match,coherence"];
    let quote = told(&home, &[&run[..], &["--quote", "--json"]].concat()).await;
    assert_eq!((&quote["items"], &quote["calls"]), (&json!(400), &json!(200)));
    let row = told(&home, &[&run[..], &["--budget", "5", "--no-wait", "--json"]].concat()).await;
    let id = row["id"].as_str().unwrap().to_owned();
    while endpoint.calls() < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    emberd.kill();
    let emberd = home.start();

    let path = format!("/api/evaluations/{id}");
    let mut last = Value::Null;
    for _ in 0..2_400 {
        last = emberd.get(&path).await;
        if last["status"] == "completed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(last["status"], "completed", "{last:#}\n{}", emberd.said());
    let of = |name: &str| last["metrics"]["evaluators"][name].clone();
    assert_eq!((&of("exact_match")["mean"], &of("exact_match")["of"]), (&json!(0.75), &json!(200)));
    assert_eq!((&of("coherence")["scored"], &of("coherence")["errors"]), (&json!(200), &json!(0)));
    // Calls in flight at the kill may have been made twice, no others: the provider begins with few at a time, 32 at most.
    let calls = endpoint.calls();
    assert!((200..=232).contains(&calls), "{calls} calls for 200 judgements");

    let shown = told(&home, &["eval", "show", &id, "--results", "--json"]).await;
    let results = shown["per_example"].as_array().unwrap();
    let mut keys: Vec<String> =
        results.iter().map(|one| format!("{}/{}", one["example_id"], one["evaluator"])).collect();
    keys.sort();
    keys.dedup();
    assert_eq!((results.len(), keys.len()), (400, 400));
    let listed = told(&home, &["eval", "list", "--prompt", "capitals", "--json"]).await;
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &json!(id)));

    let back = home.path().join("back.csv");
    let output = home.command(&["dataset", "export", "capitals", back.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(&back).unwrap().lines().count(), 201);

    // The same again costs nothing: each answer is known.
    let again = told(&home, &[&run[..], &["--json"]].concat()).await;
    assert_eq!((&again["status"], &again["cost"]["spent"]), (&json!("completed"), &json!(0.0)));
    assert_eq!(endpoint.calls(), calls);
    emberd.terminate();
}

/// What cannot be run is refused whole, with what to do.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_said() {
    let home = Home::new();
    let emberd = home.start();
    let refused = |arguments: &'static [&'static str]| {
        let output = home.command(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let run = &["eval", "run", "--prompt", "nobody", "--dataset", "none", "--evaluators", "exact_match"];
    assert!(refused(run).contains("there is no prompt"), "{}", refused(run));
    assert!(refused(&["dataset", "import", "/nowhere/x.jsonl"]).contains("cannot read"));
    assert!(refused(&["dataset", "import", "/nowhere/x.doc"]).contains("json, jsonl, csv or parquet"));
    emberd.terminate();
    assert!(refused(&["eval", "list"]).contains("is it running?"));
}

/// A plugin that cannot start is named as down, with the reason for who may see it, and emberd is ready all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_down_is_named_and_makes_nobody_unready() {
    let home = Home::new();
    home.configure("[plugins.gone]\ncommand = [\"/bin/false\"]\n[plugins.nothing]\nwasm = \"/nowhere/nothing.wasm\"\n");
    let emberd = home.start();
    let is_down = |standing: &Value| standing["status"] == "down";
    let mut last = Value::Null;
    for _ in 0..600 {
        last = emberd.get("/api/status").await["plugins"].clone();
        if last.as_array().unwrap().iter().all(is_down) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let standings = last.as_array().unwrap();
    assert_eq!(
        (standings.len(), &standings[0]["plugin"], &standings[1]["plugin"]),
        (2, &json!("gone"), &json!("nothing"))
    );
    assert!(standings[0]["why"].as_str().unwrap().contains("exit code 1"), "{last}");
    let ready = reqwest::get(format!("{}/readyz", emberd.api())).await.unwrap();
    assert_eq!(ready.status(), 200);
    // It is tried again and again, and down in between.
    let mut answer: Value = ready.json().await.unwrap();
    let plugins = answer["plugins"].take();
    assert!(["down", "starting"].contains(&plugins["gone"].as_str().unwrap()), "{plugins}");
    assert_eq!((&answer["ready"], &plugins["nothing"]), (&json!(true), &json!("down")));
    let metrics = reqwest::get(format!("{}/metrics", emberd.api())).await.unwrap().text().await.unwrap();
    for line in ["emberd_plugin_ready{plugin=\"gone\"} 0", "phoenix_evaluations{status=\"running\"} 0"] {
        assert!(metrics.lines().any(|one| one == line), "{line}\n{metrics}");
    }
    emberd.terminate();
}

/// A rule judges half of the traffic: exactly the traces whose hash says so, each once, over a kill; and of each trace it is said why.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_judges_the_traces_whose_hash_says_so() {
    const TRACES: u64 = 60;
    let home = Home::new();
    let mut emberd = home.start();
    let rule = json!({
        "name": "half", "config": { "share": 0.5, "evaluators": [{ "name": "latency_budget", "config": { "max_ms": 5_000 } }] },
    });
    let put = reqwest::Client::new().post(format!("{}/api/evaluation-rules", emberd.api())).json(&rule);
    let put = put.send().await.unwrap();
    assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
    // A new consumer begins with what comes from now on, once it has read its rules.
    tokio::time::sleep(Duration::from_secs(7)).await;
    for traces in [0..TRACES / 2, TRACES / 2..TRACES] {
        let mut client = Client::connect(&emberd).await;
        for trace in traces.clone() {
            let spans = (0..3).map(|number| sink::span(trace, number)).collect();
            client.send_grpc(sink::request(Some("shop"), spans)).await.unwrap();
        }
        if traces.start == 0 {
            emberd.kill();
            emberd = home.start();
        }
    }
    for trace in 0..TRACES {
        let id: String = sink::trace_id(trace).iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = if is_sampled("half", &id, 0.5) { "run" } else { "sampled_out" };
        let mut last = Value::Null;
        for _ in 0..600 {
            last = emberd.get(&format!("/api/traces/{id}/decisions")).await;
            if !last["data"].as_array().unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let decisions = last["data"].as_array().unwrap();
        assert_eq!(decisions.len(), 1, "{id}: {last}\n{}", emberd.said());
        assert_eq!(decisions[0]["decision"], expected, "{id}: {last}");
        if expected == "run" {
            let scores = decisions[0]["scores"].as_array().unwrap();
            assert_eq!((scores.len(), &scores[0]["score"]), (1, &json!(1.0)), "{id}: {last}");
        }
    }
    let told = told(&home, &["eval", "why", &"ab".repeat(16), "--json"]).await;
    assert_eq!(told["data"], json!([]));
    emberd.sums_are_right(&home).await;
    emberd.terminate();
}

/// The hash of docs/decisions/0011-evaluation.md, written anew.
fn is_sampled(salt: &str, trace: &str, share: f64) -> bool {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(format!("emberd:sample:{salt}:{trace}").as_bytes());
    let number = u64::from_be_bytes(digest[..8].try_into().unwrap());
    (number as f64) < share * 2_f64.powi(64)
}
