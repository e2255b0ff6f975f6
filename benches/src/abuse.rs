//! What plugins can do to the intake: the answer's p99 and emberd's memory under a steady load, alone, with jobs on a healthy plugin, and with
//! jobs on plugins that flood, hang, spin, take memory and fork.
//!
//! Rounds alternate, each with a fresh emberd; the figures are medians over the rounds, and ratios to the same round's emberd without
//! plugins. The plugins run where emberd runs, on core 0: nobody has more to fear from them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::load::Load;
use crate::server::{API, Programs, data, ready};
use crate::table::{self, median};

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Seconds of load in each round
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Rounds of each
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Requests of 100 spans a second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// A program that plugins are started through, with their command as its arguments: to take back what emberd makes them wait
    #[arg(long)]
    through: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 10.0, rounds: 7, rate: 100.0, through: None }
    }
}

/// Modes of `evaluators/hosts/tests/it/abusive.py`.
const ABUSES: [&str; 8] =
    ["line_of_1_gib", "many_lines", "streams_for_ever", "busy_for_ever", "hang", "hog", "fork_bomb", "crash_on_one"];
const EXAMPLES: usize = 300;
/// Jobs on each plugin, so that none is over before the load is.
const JOBS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Healthy,
    Abusive,
}

impl Beside {
    const ALL: [Self; 3] = [Self::Nothing, Self::Healthy, Self::Abusive];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no plugins",
            Self::Healthy => "jobs on a healthy plugin",
            Self::Abusive => "jobs on eight abusive plugins",
        }
    }

    /// Names and arguments of its plugins.
    fn plugins(self) -> Vec<(String, Vec<String>)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let script = |path: &str| root.join(path).display().to_string();
        match self {
            Self::Nothing => Vec::new(),
            Self::Healthy => vec![("shout".to_owned(), vec![script("evaluators/plugins/examples/shout.py")])],
            Self::Abusive => {
                let abusive = |mode: &str| {
                    (mode.to_owned(), vec![script("evaluators/hosts/tests/it/abusive.py"), mode.to_owned()])
                };
                ABUSES.map(abusive).into()
            }
        }
    }

    fn evaluator(self) -> &'static str {
        if self == Self::Healthy { "shouts" } else { "x" }
    }

    fn configuration(self, through: Option<&String>) -> anyhow::Result<String> {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../evaluators/plugins/sdk").canonicalize()?;
        let mut text = String::new();
        for (name, arguments) in self.plugins() {
            let command: Vec<String> =
                through.cloned().into_iter().chain([python()?.display().to_string()]).chain(arguments).collect();
            text.push_str(&format!("[plugins.{name}]\ncommand = {command:?}\nenv = {{ PYTHONPATH = {sdk:?} }}\n"));
        }
        Ok(text)
    }
}

/// The one that `.ci/services setup` made: it has grpcio.
fn python() -> anyhow::Result<PathBuf> {
    let cache = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/emberd/phoenix"));
    let venv = std::env::var_os("EMBERD_PHOENIX").map(PathBuf::from).or_else(cache).context("HOME is not set")?;
    Ok(venv.join("bin/python"))
}

/// What a round came to.
struct Round {
    p50_ms: f64,
    p99_ms: f64,
    peak_rss_mib: f64,
    judged: f64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let programs = Programs::find()?;
    let mut rounds: [Vec<Round>; 3] = Default::default();
    for number in 0..options.rounds {
        for (beside, kept) in Beside::ALL.into_iter().zip(&mut rounds) {
            eprintln!("abuse: round {} of {}, {}", number + 1, options.rounds, beside.name());
            kept.push(one(&programs, beside, options)?);
        }
    }
    let rows: Vec<Vec<String>> =
        Beside::ALL.iter().zip(&rounds).map(|(beside, own)| row(*beside, own, &rounds[0])).collect();
    let title = format!(
        "{} requests of 100 spans a second beside plugins (median of {} rounds of {} s; lowest to highest)",
        options.rate, options.rounds, options.seconds
    );
    table::print(&title, &["", "p50 ms", "p99 ms", "x alone", "peak RSS MiB", "x alone", "results"], &rows);
    Ok(())
}

fn row(beside: Beside, own: &[Round], alone: &[Round]) -> Vec<String> {
    let middle = |of: fn(&Round) -> f64| median(own.iter().map(of));
    let spread = |of: fn(&Round) -> f64| {
        let (low, high) = own.iter().map(of).fold((f64::MAX, 0_f64), |(low, high), one| (low.min(one), high.max(one)));
        format!("{:.2} ({low:.2} to {high:.2})", middle(of))
    };
    let ratio = |of: fn(&Round) -> f64| median(own.iter().zip(alone).map(|(own, alone)| of(own) / of(alone)));
    vec![
        beside.name().to_owned(),
        format!("{:.2}", middle(|round| round.p50_ms)),
        spread(|round| round.p99_ms),
        format!("{:.3}", ratio(|round| round.p99_ms)),
        spread(|round| round.peak_rss_mib),
        format!("{:.3}", ratio(|round| round.peak_rss_mib)),
        format!("{:.0}", middle(|round| round.judged)),
    ]
}

fn one(programs: &Programs, beside: Beside, options: &Options) -> anyhow::Result<Round> {
    let dir = data()?;
    let config = dir.path().join("bench.toml");
    std::fs::write(&config, beside.configuration(options.through.as_ref())?)?;
    let server = programs.judging(&config, &dir.path().join("data"))?;
    ready()?;
    let http = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    http.block_on(begin(beside))?;
    let report = Programs::load(&Load { rate: Some(options.rate), ..Load::usual(options.seconds) })?;
    let judged = http.block_on(judged())?;
    let number = |key: &str| report[key].as_f64().with_context(|| format!("no {key}"));
    let round =
        Round { p50_ms: number("p50_ms")?, p99_ms: number("p99_ms")?, peak_rss_mib: server.peak_rss_mib(), judged };
    // Fairness: a server that is ended leaves nobody behind who would disturb the next round.
    server.stop()?;
    Ok(round)
}

async fn ask(method: reqwest::Method, path: &str, body: &Value) -> anyhow::Result<Value> {
    let request = reqwest::Client::new().request(method, format!("http://{API}{path}"));
    let request = if body.is_null() { request } else { request.json(body) };
    let answer = request.send().await?;
    let (status, answer) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{path}: {status} {answer}");
    Ok(serde_json::from_str(&answer)?)
}

/// Jobs on every plugin, each third example of which is one that the plugin takes badly; and half a minute at most until they work.
async fn begin(beside: Beside) -> anyhow::Result<()> {
    let (get, post) = (reqwest::Method::GET, reqwest::Method::POST);
    let plugins = beside.plugins();
    let since = Instant::now();
    loop {
        let told = ask(get.clone(), "/readyz", &Value::Null).await?;
        if plugins.iter().all(|(name, _)| told["plugins"][name] == "ready") {
            break;
        }
        ensure!(since.elapsed() < Duration::from_secs(60), "plugins are not ready: {told}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let prompt = ask(post.clone(), "/api/prompts", &json!({ "title": "bench", "content": "{{input}}" })).await?;
    let output = |nr: usize| if nr.is_multiple_of(3) { "poison" } else { "harmless" };
    let example = |nr: usize| json!({ "id": format!("e{nr}"), "input": "?", "output": output(nr) });
    let examples: Vec<Value> = (0..EXAMPLES).map(example).collect();
    let dataset =
        ask(post.clone(), "/api/datasets", &json!({ "name": "bench", "type": "custom", "data": examples })).await?;
    for (name, _) in plugins.iter().flat_map(|plugin| std::iter::repeat_n(plugin, JOBS)) {
        let evaluators = json!([format!("{name}/{}", beside.evaluator())]);
        let config = json!({ "evaluators": evaluators });
        let job = json!({ "promptId": prompt["id"], "datasetId": dataset["id"], "name": name, "config": config });
        // It is refused while its plugin is being started afresh, which these are, for the others are at work already.
        while let Err(refused) = ask(post.clone(), "/api/evaluations", &job).await {
            ensure!(since.elapsed() < Duration::from_secs(120), "{refused}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    // Until all of them are at it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

/// How many results there are by now, errors among them.
async fn judged() -> anyhow::Result<f64> {
    let mut sum = 0.0;
    let listed = ask(reqwest::Method::GET, "/api/evaluations?limit=200", &Value::Null).await?;
    for row in listed["data"].as_array().context("no data")? {
        let row =
            ask(reqwest::Method::GET, &format!("/api/evaluations/{}", row["id"].as_str().unwrap_or("")), &Value::Null)
                .await?;
        let part = |key: &str| row["progress"][key].as_f64().unwrap_or(0.0);
        sum += part("done") + part("failed");
    }
    Ok(sum)
}
