//! What `config/` gives to Prometheus and Grafana, held against the real Prometheus of Debian's packages, which scrapes the real emberd.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::{Home, PATIENCE};

pub fn tool(name: &str) -> PathBuf {
    let cache = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/emberd");
    let tool = std::env::var_os("EMBERD_CACHE").map_or_else(cache, PathBuf::from).join("prometheus/usr/bin").join(name);
    assert!(tool.exists(), "no {}; run make setup", tool.display());
    tool
}

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config").canonicalize().unwrap()
}

fn succeeds(output: &Output) {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
}

/// The expressions of a Grafana dashboard's panels.
fn dashboard() -> Vec<String> {
    let board: Value = serde_json::from_slice(&std::fs::read(config().join("grafana/emberd.json")).unwrap()).unwrap();
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// The expressions of the alert rules.
fn alerts() -> Vec<String> {
    let rules = std::fs::read_to_string(config().join("prometheus/emberd.rules.yml")).unwrap();
    rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ").map(str::to_owned)).collect()
}

/// Names of metrics in an expression: what begins like one of emberd's.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("emberd_") || word.starts_with("phoenix_"))
}

#[test]
fn rules_fire_when_they_should() {
    let rules = config().join("prometheus");
    let promtool = |arguments: &[&str]| {
        succeeds(&Command::new(tool("promtool")).args(arguments).current_dir(&rules).output().unwrap());
    };
    promtool(&["check", "rules", "emberd.rules.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "emberd.rules.test.yml"]);
}

/// A Prometheus of one's own, ended with this.
struct Prometheus {
    child: Child,
    url: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn scraping(home: &Home, target: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = home.path().join("prometheus.yml");
        let rules = config().join("prometheus/emberd.rules.yml");
        let text = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": [{ "job_name": "emberd", "static_configs": [{ "targets": [target] }] }],
        });
        // JSON is YAML.
        std::fs::write(&file, text.to_string()).unwrap();
        let child = Command::new(tool("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, url: format!("http://127.0.0.1:{port}") }
    }

    async fn query(&self, expression: &str) -> Option<Value> {
        let url = format!("{}/api/v1/query", self.url);
        let url = reqwest::Url::parse_with_params(&url, [("query", expression)]).unwrap();
        reqwest::get(url).await.ok()?.json().await.ok()
    }
}

/// Every query of the dashboard and every rule is one that Prometheus takes, of metrics that emberd has; those of a running emberd give
/// values.
#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_rules_ask_for_what_there_is() {
    let home = Home::new();
    let emberd = home.start();
    reqwest::get(format!("{}/api/prompts", emberd.api())).await.unwrap();
    let page = reqwest::get(format!("{}/metrics", emberd.api())).await.unwrap().text().await.unwrap();
    let told: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let expressions: Vec<String> = dashboard().into_iter().chain(alerts()).collect();
    assert!(expressions.len() > 25, "{}", expressions.len());
    for name in expressions.iter().flat_map(|expression| names(expression)) {
        let family = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        let is_plugins = family.starts_with("emberd_plugin_");
        assert!(told.contains(family) || told.contains(name) || is_plugins, "{name} is no metric of emberd's");
    }
    let prometheus = Prometheus::scraping(&home, emberd.api().strip_prefix("http://").unwrap());
    let begun = Instant::now();
    loop {
        let up = prometheus.query("up == 1").await;
        if up.is_some_and(|up| up["data"]["result"].as_array().is_some_and(|found| !found.is_empty())) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "Prometheus does not scrape emberd");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut with_values = 0;
    for expression in &expressions {
        let answer = prometheus.query(expression).await.unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        with_values += usize::from(!answer["data"]["result"].as_array().unwrap().is_empty());
    }
    assert!(with_values >= 8, "only {with_values} of the queries have values");
    let rules: Value = reqwest::get(format!("{}/api/v1/rules", prometheus.url)).await.unwrap().json().await.unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), alerts().len());
    assert!(rules.iter().all(|rule| rule["state"] == "inactive"), "{rules:?}");
    drop(prometheus);
    emberd.terminate();
}
