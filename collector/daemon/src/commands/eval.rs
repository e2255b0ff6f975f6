//! `emberd eval`: runs evaluators over a dataset or over past traces, shows what came of it, and says why a trace was scored or not.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Where;
use super::bars::bar;
use super::dataset;
use super::remote::{Remote, text};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run evaluators over a dataset, or over past traces of a prompt
    Run(Box<Run>),
    /// List evaluations, newest first
    List {
        #[command(flatten)]
        place: Where,
        /// Of this prompt only: its id or title
        #[arg(long)]
        prompt: Option<String>,
        /// pending, running, completed, failed or cancelled
        #[arg(long)]
        status: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show an evaluation: its metrics and its errors by class; with --results every example's
    Show {
        #[command(flatten)]
        place: Where,
        /// The evaluation's id
        id: String,
        /// Every example's result, not only the summary
        #[arg(long)]
        results: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop an evaluation; what is scored stays
    Cancel {
        #[command(flatten)]
        place: Where,
        /// The evaluation's id
        id: String,
    },
    /// Try again what failed
    Retry {
        #[command(flatten)]
        place: Where,
        /// The evaluation's id
        id: String,
        /// Do not wait for its end
        #[arg(long)]
        no_wait: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what each live rule decided of a trace, and why
    Why {
        #[command(flatten)]
        place: Where,
        /// The trace's id: 32 hex digits
        trace: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the evaluators there are: built in, judges, plugins, with the fields they need
    Evaluators {
        #[command(flatten)]
        place: Where,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    place: Where,
    /// The prompt: its id or title
    #[arg(long)]
    prompt: String,
    /// The dataset: its id, its name, or a file (JSON, JSONL, CSV, Parquet), which is imported first
    #[arg(long, required_unless_present = "traces")]
    dataset: Option<String>,
    /// Judge so many of the prompt's latest traces instead of a dataset
    #[arg(long, value_name = "COUNT", conflicts_with = "dataset")]
    traces: Option<u32>,
    /// The evaluators, with commas: exact_match, coherence, PLUGIN/METRIC
    #[arg(long, value_delimiter = ',', required_unless_present = "job")]
    evaluators: Vec<String>,
    /// The whole config as JSON, or @FILE: {model, temperature, maxTokens, evaluators: [{name, config, mapping}]}
    #[arg(long, value_name = "JSON", conflicts_with = "evaluators")]
    job: Option<String>,
    /// The model that answers the prompt first; without it the examples' own outputs are judged
    #[arg(long)]
    model: Option<String>,
    /// The model that judges
    #[arg(long)]
    judge: Option<String>,
    /// What it may cost at most, in dollars
    #[arg(long, value_name = "DOLLARS")]
    budget: Option<f64>,
    /// What it shall be called
    #[arg(long)]
    name: Option<String>,
    /// Only say what it would cost
    #[arg(long)]
    quote: bool,
    /// Do not wait for its end
    #[arg(long)]
    no_wait: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let place = match &options.what {
        What::Run(run) => &run.place,
        What::List { place, .. }
        | What::Show { place, .. }
        | What::Cancel { place, .. }
        | What::Retry { place, .. }
        | What::Why { place, .. }
        | What::Evaluators { place, .. } => place,
    };
    let config = match place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let remote = Remote::of(&config)?;
    match &options.what {
        What::Run(run) => start(&remote, run).await,
        What::List { prompt, status, limit, json, .. } => {
            list(&remote, prompt.as_deref(), status.as_deref(), *limit, *json).await
        }
        What::Show { id, results, json, .. } => show(&remote, id, *results, *json).await,
        What::Cancel { id, .. } => {
            remote.post(&format!("/api/evaluations/{id}/cancel"), &json!({})).await?;
            println!("cancelled; `emberd eval show {id}` has what was scored");
            Ok(ExitCode::SUCCESS)
        }
        What::Retry { id, no_wait, json, .. } => {
            let row = remote.post(&format!("/api/evaluations/{id}/retry"), &json!({})).await?;
            follow(&remote, row, *no_wait, *json).await
        }
        What::Why { trace, json, .. } => why(&remote, trace, *json).await,
        What::Evaluators { json, .. } => evaluators(&remote, *json).await,
    }
}

async fn start(remote: &Remote, run: &Run) -> anyhow::Result<ExitCode> {
    let prompt = prompt(remote, &run.prompt).await?;
    let mut config = match &run.job {
        Some(text) => read_config(text)?,
        None => json!({ "evaluators": run.evaluators }),
    };
    for (key, value) in [("model", &run.model), ("judgeModel", &run.judge)] {
        if let Some(value) = value {
            config[key] = json!(value);
        }
    }
    if let Some(budget) = run.budget {
        config["budget"] = json!(budget);
    }
    let mut body = json!({ "promptId": prompt["id"], "config": config });
    let mut of = "traces".to_owned();
    match (&run.dataset, run.traces) {
        (Some(dataset), _) => {
            let dataset = dataset::find_or_import(remote, dataset).await?;
            body["datasetId"] = dataset["id"].clone();
            of = text(&dataset["name"]).to_owned();
        }
        (None, limit) => body["traces"] = json!({ "limit": limit }),
    }
    let title = format!("{} on {of}", text(&prompt["title"]));
    body["name"] = json!(run.name.as_deref().unwrap_or(&title).chars().take(255).collect::<String>());

    let quote = remote.post("/api/evaluations/quote", &body).await?;
    if run.quote {
        match run.json {
            true => println!("{quote:#}"),
            false => println!("{}", quoted(&quote)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !run.json {
        eprintln!("{}", quoted(&quote));
    }
    let row = remote.post("/api/evaluations", &body).await?;
    follow(remote, row, run.no_wait, run.json).await
}

fn read_config(text: &str) -> anyhow::Result<Value> {
    let text = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?,
        None => text.to_owned(),
    };
    let config: Value = serde_json::from_str(&text).context("--job is not JSON")?;
    if config.is_object() { Ok(config) } else { bail!("--job is not a JSON object") }
}

fn quoted(quote: &Value) -> String {
    let (items, calls) = (&quote["items"], &quote["calls"]);
    let cost = match (quote["cost"]["low"].as_f64(), quote["cost"]["high"].as_f64()) {
        (_, Some(0.0)) => "costs nothing".to_owned(),
        (Some(low), Some(high)) => format!("about ${low:.4}, at most ${high:.4}"),
        _ => "at a cost that nobody knows: the price table does not have the model".to_owned(),
    };
    format!("{items} items, {calls} calls to models, {cost}")
}

/// The prompt of this id or title.
async fn prompt(remote: &Remote, named: &str) -> anyhow::Result<Value> {
    let prompts = remote.all("/api/prompts", &[], 100_000).await?;
    let found: Vec<Value> =
        prompts.into_iter().filter(|prompt| prompt["id"] == named || prompt["title"] == named).collect();
    match <[Value; 1]>::try_from(found) {
        Ok([prompt]) => Ok(prompt),
        Err(found) if found.is_empty() => bail!("there is no prompt with the id or title {named:?}"),
        Err(_) => bail!("several prompts have the title {named:?}: give the id"),
    }
}

/// Waits for an evaluation's end, with a bar on a terminal.
async fn follow(remote: &Remote, row: Value, no_wait: bool, json: bool) -> anyhow::Result<ExitCode> {
    let id = row["id"].as_str().context("an answer without id")?.to_owned();
    if no_wait {
        match json {
            true => println!("{row:#}"),
            false => println!("{id}"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let bar = bar("{bar:30} {pos}/{len}  {per_sec}, {eta} left  {msg}", "", json);
    let path = format!("/api/evaluations/{id}");
    let row = loop {
        let row = remote.get(&path, &[]).await?;
        let progress = &row["progress"];
        let number = |key: &str| progress[key].as_u64().unwrap_or(0);
        bar.set_length(number("total"));
        bar.set_position(number("done") + number("failed"));
        let spent = row["cost"]["spent"].as_f64().unwrap_or(0.0);
        bar.set_message(format!("{} failed, ${spent:.4}", number("failed")));
        if !matches!(row["status"].as_str(), Some("pending" | "running")) {
            break row;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    bar.finish_and_clear();
    match json {
        true => println!("{row:#}"),
        false => println!("{}", summary(&row)),
    }
    let well = row["status"] == "completed";
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An evaluation as a page of text.
fn summary(row: &Value) -> String {
    let mut page = format!("{}  {}  {}\n", text(&row["id"]), text(&row["status"]), text(&row["name"]));
    if let Some(error) = row["error"].as_str() {
        page.push_str(&format!("  {error}\n"));
    }
    let progress = &row["progress"];
    let spent = row["cost"]["spent"].as_f64().unwrap_or(0.0);
    page.push_str(&format!(
        "  {} done, {} failed of {}, ${spent:.4}\n",
        progress["done"], progress["failed"], progress["total"]
    ));
    let evaluators = row["metrics"]["evaluators"].as_object();
    for (name, of) in evaluators.into_iter().flatten() {
        let figure = |key: &str| of[key].as_f64().map_or("-".to_owned(), |value| format!("{value:.3}"));
        page.push_str(&format!(
            "  {name:<28} {}  [{}, {}]  {} scored, {} errors of {}\n",
            figure("mean"),
            figure("ci_low"),
            figure("ci_high"),
            of["scored"],
            of["errors"],
            of["of"]
        ));
    }
    for (class, count) in row["metrics"]["errors"].as_object().into_iter().flatten() {
        page.push_str(&format!("  error {class}: {count}\n"));
    }
    page.trim_end().to_owned()
}

async fn list(
    remote: &Remote,
    prompt_named: Option<&str>,
    status: Option<&str>,
    limit: usize,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut query = Vec::new();
    if let Some(named) = prompt_named {
        query.push(("promptId", text(&prompt(remote, named).await?["id"]).to_owned()));
    }
    query.extend(status.map(|status| ("status", status.to_owned())));
    let rows = remote.all("/api/evaluations", &query, limit).await?;
    if json {
        println!("{:#}", Value::Array(rows));
        return Ok(ExitCode::SUCCESS);
    }
    for row in &rows {
        let (id, status, at) = (text(&row["id"]), text(&row["status"]), text(&row["created_at"]));
        println!("{id}  {status:<10} {at:.19}  {}", text(&row["name"]));
    }
    if rows.is_empty() {
        println!("no evaluations; `emberd eval run` makes one");
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(remote: &Remote, id: &str, results: bool, json: bool) -> anyhow::Result<ExitCode> {
    let mut row = remote.get(&format!("/api/evaluations/{id}"), &[]).await?;
    let path = format!("/api/evaluations/{id}/results");
    let rows = if results { remote.all(&path, &[], 1_000_000).await? } else { Vec::new() };
    if json {
        if results {
            row["per_example"] = Value::Array(rows);
        }
        println!("{row:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", summary(&row));
    for result in &rows {
        let outcome = match result["error"].as_str() {
            Some(error) => format!("error {}: {error}", text(&result["error_class"])),
            None => {
                let score = result["score"].as_f64().map_or("-".to_owned(), |score| format!("{score:.3}"));
                format!("{score} {}", result["label"].as_str().unwrap_or(""))
            }
        };
        println!("  {}  {:<28} {outcome}", text(&result["example_id"]), text(&result["evaluator"]));
    }
    Ok(ExitCode::SUCCESS)
}

async fn why(remote: &Remote, trace: &str, json: bool) -> anyhow::Result<ExitCode> {
    let answer = remote.get(&format!("/api/traces/{trace}/decisions"), &[]).await?;
    if json {
        println!("{answer:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let decisions = answer["data"].as_array().context("an answer without data")?;
    for decision in decisions {
        let detail = decision["detail"].as_str().map_or(String::new(), |detail| format!(": {detail}"));
        println!("{}  {}{detail}", text(&decision["rule"]), text(&decision["decision"]));
        for score in decision["scores"].as_array().into_iter().flatten() {
            let outcome = match score["error"].as_str() {
                Some(error) => format!("error {}: {error}", text(&score["error_class"])),
                None => format!("{} {}", score["score"], score["label"].as_str().unwrap_or("")),
            };
            println!("  {}  {outcome}", text(&score["name"]));
        }
    }
    if decisions.is_empty() {
        println!("no rule has seen this trace: there is none, it has not come, or it is not complete yet");
    }
    Ok(ExitCode::SUCCESS)
}

async fn evaluators(remote: &Remote, json: bool) -> anyhow::Result<ExitCode> {
    let answer = remote.get("/api/evaluators", &[]).await?;
    if json {
        println!("{answer:#}");
        return Ok(ExitCode::SUCCESS);
    }
    for evaluator in answer["data"].as_array().into_iter().flatten() {
        let fields = evaluator["fields"].as_array().into_iter().flatten();
        let fields: Vec<&str> = fields.map(|field| text(&field["name"])).collect();
        let kind = text(&evaluator["kind"]);
        println!("{:<28} {kind:<5} {}", text(&evaluator["name"]), fields.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
