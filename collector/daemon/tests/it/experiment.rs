//! An evaluation from a file to Phoenix: three built-ins, two judges and two metrics of the real phoenix-evals over one dataset.
//!
//! Everything is the real thing but the model, which is an [`Endpoint`] that counts and bills. As many examples as fit in a minute;
//! `EMBERD_TEST_EVAL_EXAMPLES=1000` is the whole.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::{Duration, Instant};

use emberd_phoenix::process::{Phoenix, Ports};
use serde_json::{Value, json};

use super::endpoint::{BAD, Endpoint};
use super::evaluation::told;
use super::phoenix;
use super::process::{Emberd, Home};

/// By which all seven are named in results, in metrics and in Phoenix.
const NAMES: [&str; 7] = [
    "exact_match",
    "regex",
    "levenshtein_ratio",
    "correctness",
    "conciseness",
    "phoenix_exact_match",
    "phoenix_matches_regex",
];
const BUDGET: f64 = 5.0;

fn evaluators() -> Value {
    json!(["exact_match", { "name": "regex", "config": { "pattern": "^city [0-9]+$" } }, "levenshtein_ratio", "correctness", "conciseness",
        { "name": "phoenix/exact_match", "as": "phoenix_exact_match" },
        { "name": "phoenix/matches_regex", "as": "phoenix_matches_regex", "config": { "pattern": "^city [0-9]+$" } }])
}

fn count() -> usize {
    std::env::var("EMBERD_TEST_EVAL_EXAMPLES").map_or(300, |count| count.parse().expect("a number"))
}

/// Every third is right, whoever judges.
fn is_right(nr: usize) -> bool {
    nr.is_multiple_of(3)
}

fn file_of(home: &Home, count: usize) -> std::path::PathBuf {
    let line = |nr: usize| {
        let output = if is_right(nr) { format!("city {nr}") } else { format!("{BAD} {nr}") };
        json!({ "id": format!("e{nr}"), "input": format!("capital {nr}?"), "output": output, "reference": format!("city {nr}") })
    };
    let text: String = (0..count).map(|nr| format!("{}\n", line(nr))).collect();
    let file = home.path().join("capitals.jsonl");
    std::fs::write(&file, text).unwrap();
    file
}

/// The Python plugin that serves phoenix-evals, out of the checkout, in the environment that Phoenix is in.
fn configuration() -> String {
    let plugins = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../evaluators/plugins");
    let paths = format!("{0}/sdk:{0}/phoenix-evals", plugins.canonicalize().unwrap().display());
    let python = phoenix::venv().join("bin/python");
    format!(
        "[plugins.phoenix]\ncommand = [{python:?}, \"-m\", \"emberd_phoenix_evals\"]\n\
         env = {{ PYTHONPATH = {paths:?}, PYTHONDONTWRITEBYTECODE = \"1\" }}\n"
    )
}

/// A file is imported and judged in seven ways: the command says so, the row and each example's results say the same, the money is the
/// endpoint's bill, and Phoenix holds the dataset, one experiment, its runs and each evaluation with the same score and label.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_judged_in_seven_ways_and_phoenix_has_it_all() {
    let (count, begun) = (count(), Instant::now());
    let endpoint = Endpoint::new(Duration::ZERO);
    let mut home = Home::new();
    let phoenix = phoenix::started(&home.path().join("phoenix"), Ports::free().unwrap()).await;
    home.set("EMBERD_PHOENIX_OTLP", &phoenix.otlp()).set("EMBERD_PHOENIX_URL", &phoenix.url());
    home.set("EMBERD_LLM_BASE_URL", &endpoint.url).set("EMBERD_LLM_JUDGE_MODEL", "gpt-4o-mini");
    home.configure(&configuration());
    let emberd = home.start();
    plugin_is_there(&emberd).await;
    let made = reqwest::Client::new()
        .post(format!("{}/api/prompts", emberd.api()))
        .json(&json!({ "title": "capitals", "content": "{{input}}" }));
    assert!(made.send().await.unwrap().status().is_success());
    let file = file_of(&home, count);
    let dataset = told(&home, &["dataset", "import", file.to_str().unwrap(), "--json"]).await;
    assert_eq!((&dataset["name"], &dataset["examples"]), (&json!("capitals"), &json!(count)));
    let up = begun.elapsed();

    let job = json!({ "evaluators": evaluators() }).to_string();
    let budget = BUDGET.to_string();
    let run = ["eval", "run", "--prompt", "capitals", "--dataset", "capitals", "--job", &job, "--budget", &budget];
    let quote = told(&home, &[&run[..], &["--quote", "--json"]].concat()).await;
    let parts = [&quote["examples"], &quote["items"], &quote["calls"]];
    assert_eq!(parts, [&json!(count), &json!(7 * count), &json!(2 * count)]);
    assert_eq!(endpoint.calls(), 0, "a quote costs nothing");

    let begun = Instant::now();
    let output = ran(&home, &run).await;
    let judged = begun.elapsed();
    let id = what_it_says(&output, count);
    assert_eq!(endpoint.calls(), 2 * count as u64, "each judgement is one call");
    let row = told(&home, &["eval", "show", &id, "--json"]).await;
    the_row_is_right(&row, &quote, &endpoint, count);
    let results = each_once(&emberd, &id, count, endpoint.bill()).await;

    let begun = Instant::now();
    let experiment = told_to_phoenix(&emberd, &id).await;
    let told_in = begun.elapsed();
    phoenix_has(&phoenix, &experiment, &id, &results, count).await;

    // The same again is known, and costs nothing.
    let again = told(&home, &[&run[..], &["--json"]].concat()).await;
    assert_eq!((&again["status"], &again["cost"]["spent"]), (&json!("completed"), &json!(0.0)));
    assert_eq!(again["metrics"]["cached"], json!(2 * count));
    assert_eq!(
        again["metrics"]["evaluators"]["correctness"]["mean"],
        row["metrics"]["evaluators"]["correctness"]["mean"]
    );
    assert_eq!(endpoint.calls(), 2 * count as u64);
    what_is_measured(&emberd).await;
    super::figure(
        "F-evaluation",
        &[
            ("examples", count.into()),
            ("items", (7 * count).into()),
            ("calls", endpoint.calls().into()),
            ("bill_nano_dollars", endpoint.bill().into()),
            ("start_s", up.as_secs_f64().into()),
            ("judged_s", judged.as_secs_f64().into()),
            ("told_to_phoenix_s", told_in.as_secs_f64().into()),
        ],
    );
    emberd.sums_are_right(&home).await;
    assert!(emberd.terminate().success());
}

/// Both evaluations are counted, with how long they took, and the plugin is named.
async fn what_is_measured(emberd: &Emberd) {
    let metrics = reqwest::get(format!("{}/metrics", emberd.api())).await.unwrap().text().await.unwrap();
    for line in [
        "# TYPE phoenix_evaluations gauge",
        "phoenix_evaluations{status=\"running\"} 0",
        "phoenix_evaluations{status=\"completed\"} 2",
        "phoenix_evaluations{status=\"failed\"} 0",
        "phoenix_evaluations{status=\"cancelled\"} 0",
        "emberd_evaluations_created_total 2",
        "# TYPE phoenix_evaluation_duration_seconds histogram",
        "phoenix_evaluation_duration_seconds_bucket{le=\"+Inf\"} 2",
        "phoenix_evaluation_duration_seconds_count 2",
        "emberd_plugin_ready{plugin=\"phoenix\"} 1",
        "emberd_plugin_open_circuits{plugin=\"phoenix\"} 0",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line}\n{metrics}");
    }
    let buckets = metrics.lines().filter_map(|line| line.strip_prefix("phoenix_evaluation_duration_seconds_bucket"));
    let counts: Vec<u64> = buckets.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(counts.is_sorted() && counts.len() > 10, "{counts:?}");
    let ready = emberd.get("/readyz").await;
    assert_eq!(ready, json!({ "ready": true, "plugins": { "phoenix": "ready" } }));
}

/// Python with its libraries takes its time to start.
async fn plugin_is_there(emberd: &Emberd) {
    let since = Instant::now();
    loop {
        let known = emberd.get("/api/evaluators").await;
        if known["data"].as_array().unwrap().iter().any(|one| one["name"] == "phoenix/exact_match") {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(120), "no plugin:\n{}", emberd.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ran(home: &Home, arguments: &[&str]) -> Output {
    let mut command = home.command(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What `emberd eval run` prints for people; gives the evaluation's id.
fn what_it_says(output: &Output, count: usize) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    assert!(err.contains(&format!("{} items, {} calls to models, about $", 7 * count, 2 * count)), "{err}");
    let (head, rest) = out.split_once('\n').unwrap();
    let words: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(words[1..], ["completed", "capitals", "on", "capitals"], "{out}");
    assert!(rest.contains(&format!("{} done, 0 failed of {}, $", 7 * count, 7 * count)), "{out}");
    for name in NAMES {
        let line = rest.lines().find(|line| line.split_whitespace().next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name}: {out}"));
        assert!(line.contains(&format!("{count} scored, 0 errors of {count}")), "{line}");
    }
    assert!(!rest.contains("error "), "{out}");
    words[0].to_owned()
}

/// The row's metrics of all seven, and its money: what was spent is the endpoint's bill, within the quote and the budget.
fn the_row_is_right(row: &Value, quote: &Value, endpoint: &Endpoint, count: usize) {
    assert_eq!((&row["status"], &row["error"]), (&json!("completed"), &Value::Null), "{row:#}");
    let right = (0..count).filter(|nr| is_right(*nr)).count() as f64 / count as f64;
    let metrics = &row["metrics"];
    assert_eq!((metrics["evaluators"].as_object().unwrap().len(), &metrics["errors"]), (NAMES.len(), &json!({})));
    for name in NAMES {
        let of = &metrics["evaluators"][name];
        assert_eq!(
            (&of["scored"], &of["errors"], &of["of"]),
            (&json!(count), &json!(0), &json!(count)),
            "{name}: {of}"
        );
        let [mean, low, high] = ["mean", "ci_low", "ci_high"].map(|key| of[key].as_f64().unwrap());
        assert!(low < mean && mean < high, "{name}: {of}");
        match name {
            "levenshtein_ratio" => assert!(mean > right && mean < 1.0, "{of}"),
            _ => assert!((mean - right).abs() < 1e-9, "{name}: {mean}, not {right}"),
        }
    }
    let progress = &row["progress"];
    assert_eq!((&progress["done"], &progress["failed"]), (&json!(7 * count), &json!(0)), "{progress}");
    let spent = row["cost"]["spent"].as_f64().unwrap();
    assert_eq!((spent * 1e9).round() as i64, endpoint.bill(), "what was spent is the bill");
    assert_eq!(row["cost"]["reserved"], json!(0.0));
    let [low, high] = ["low", "high"].map(|key| quote["cost"][key].as_f64().unwrap());
    assert!(low <= spent && spent <= high && spent <= BUDGET, "{spent} of {low} to {high}");
}

/// A score and a label.
type Verdict = (Option<f64>, Option<String>);

fn verdict(of: &Value) -> Verdict {
    (of["score"].as_f64(), of["label"].as_str().map(str::to_owned))
}

/// Every example's result of every evaluator, by pages: each once, with its part of the bill.
async fn each_once(emberd: &Emberd, id: &str, count: usize, bill: i64) -> BTreeMap<(String, String), Verdict> {
    let (mut all, mut cost, mut pages) = (BTreeMap::new(), 0.0, 0);
    let base = format!("/api/evaluations/{id}/results?limit=200");
    let mut path = base.clone();
    loop {
        let page = emberd.get(&path).await;
        pages += 1;
        for one in page["data"].as_array().unwrap_or_else(|| panic!("{page}")) {
            assert_eq!(one["error"], Value::Null, "{one}");
            let [example, name] = ["example_id", "evaluator"].map(|key| one[key].as_str().unwrap().to_owned());
            cost += one["cost"].as_f64().unwrap();
            let is_right = is_right(example[1..].parse().unwrap());
            assert_eq!(one["score"] == 1.0, is_right, "{one}");
            assert_eq!(all.insert((example, name), verdict(one)), None, "twice: {one}");
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("{base}&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(all.len(), 7 * count);
    assert!(pages > 1, "pages were to be turned");
    assert_eq!((cost * 1e9).round() as i64, bill, "the results' costs are the bill");
    all
}

/// Waits until the experiment is whole in Phoenix; its id there.
async fn told_to_phoenix(emberd: &Emberd, id: &str) -> String {
    // Phoenix takes some hundred a second; it may take long, on a busy machine.
    let since = Instant::now();
    loop {
        let row = emberd.get(&format!("/api/evaluations/{id}")).await;
        let told = row["phoenix_eval_id"].as_str().unwrap();
        if !told.starts_with("local:") {
            return told.to_owned();
        }
        assert_eq!(row["error"], Value::Null, "{row:#}");
        assert!(since.elapsed() < Duration::from_secs(600), "not told:\n{}", emberd.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The dataset, one experiment, a run of each example, and every evaluation with the score and label of `results`.
async fn phoenix_has(
    phoenix: &Phoenix,
    experiment: &str,
    job: &str,
    results: &BTreeMap<(String, String), Verdict>,
    count: usize,
) {
    let client = emberd_phoenix::Client::new(&phoenix.url(), Duration::from_secs(60)).unwrap();
    let dataset = client.dataset_by_name("capitals").await.unwrap().unwrap();
    assert_eq!(dataset.example_count, count as u64);
    let experiments = client.experiments(&dataset.id).await.unwrap();
    assert_eq!(experiments.len(), 1, "{experiments:?}");
    let one = &experiments[0];
    assert_eq!((one.id.as_str(), &one.metadata["emberd_job"]), (experiment, &json!(job)));
    assert_eq!((one.successful_run_count, one.failed_run_count, one.missing_run_count), (count as u64, 0, 0));
    let stored = client.dataset_examples(&dataset.id, Some(&one.dataset_version_id)).await.unwrap().examples;
    let ids: BTreeMap<String, String> = stored.into_iter().map(|one| (one.node_id, one.item.id)).collect();
    let runs = client.runs(experiment).await.unwrap();
    let outputs: BTreeMap<&String, &Value> = runs.iter().map(|run| (&ids[&run.example_node_id], &run.output)).collect();
    assert_eq!((runs.len(), outputs.len()), (count, count));
    for nr in 0..count {
        let output = if is_right(nr) { format!("city {nr}") } else { format!("{BAD} {nr}") };
        assert_eq!(outputs[&format!("e{nr}")], &json!(output));
    }
    let (mut told, mut evaluations) = (BTreeMap::new(), 0);
    for run in client.experiment_export(experiment).await.unwrap() {
        let example = &ids[run["example_id"].as_str().unwrap_or_else(|| panic!("{run}"))];
        for one in run["annotations"].as_array().unwrap() {
            let name = one["name"].as_str().unwrap();
            let kind = if matches!(name, "correctness" | "conciseness") { "LLM" } else { "CODE" };
            assert_eq!((&one["annotator_kind"], &one["error"]), (&json!(kind), &Value::Null), "{one}");
            told.insert((example.clone(), name.to_owned()), verdict(one));
            evaluations += 1;
        }
    }
    assert_eq!((evaluations, told.len()), (7 * count, 7 * count));
    assert!(told == *results, "{:?}", told.iter().find(|(key, verdict)| results.get(key) != Some(verdict)));
}
