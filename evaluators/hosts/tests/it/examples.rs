//! The examples that newcomers copy: they run as docs/plugins.md says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use emberd_evaluators_hosts::{Config, Source, WasmLimits};
use emberd_evaluators_kit::{Evaluator as _, Example, Spec, collect};
use serde_json::json;

use crate::support::{Running, examples, python_plugin, root};

/// The Python plugin: a score with its reason, a configuration, a missing field.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_judges() {
    let dir = tempfile::tempdir().unwrap();
    let script = root().join("evaluators/plugins/examples/shout.py");
    let plugins = BTreeMap::from([("shout".into(), python_plugin(&[script.to_str().unwrap()]))]);
    let running = Running::start(plugins, dir.path());
    let metric = running.metric("shout/shouts").await;
    let mut batch = examples(&["ABcd", "abcd"]);
    batch.push(Example::default());
    let outcomes = collect(&*metric, &batch).await;
    let score = &outcomes[0].result.as_ref().unwrap()[0];
    assert_eq!((score.value, score.explanation.as_deref()), (Some(0.5), Some("loud")));
    assert_eq!(outcomes[1].result.as_ref().unwrap()[0].value, Some(0.0));
    assert_eq!(outcomes[2].result.as_ref().unwrap_err().class.name(), "missing_field");

    let tolerant = json!({"name": "shout/shouts", "config": {"tolerated": 0.9}});
    let spec: Spec = serde_json::from_value(tolerant).unwrap();
    let tolerant = running.hosts.evaluator(&spec, std::time::Duration::ZERO).await.unwrap();
    assert_ne!(tolerant.identity(), metric.identity());
    let outcomes = collect(&*tolerant, &batch[..1]).await;
    assert_eq!(outcomes[0].result.as_ref().unwrap()[0].explanation.as_deref(), Some("quiet"));
    running.stop().await;
}

/// The module in Rust, compiled as its head says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_module_in_rust_judges() {
    let dir = tempfile::tempdir().unwrap();
    let Some(module) = compiled() else {
        println!("not run: the target wasm32-unknown-unknown is not installed");
        return;
    };
    let config = Config::new(Source::Wasm { module, limits: WasmLimits::default() });
    let running = Running::start(BTreeMap::from([("words".into(), config)]), dir.path());
    let metric = running.metric("words/brevity").await;
    let long = "word ".repeat(100);
    let mut batch = examples(&["brief", &long]);
    batch.push(Example { output: json!({"no": "text"}), ..Example::default() });
    let outcomes = collect(&*metric, &batch).await;
    let values: Vec<_> = outcomes[..2].iter().map(|outcome| outcome.result.as_ref().unwrap()[0].value).collect();
    assert_eq!(values, [Some(1.0), Some(0.5)]);
    assert_eq!(outcomes[2].result.as_ref().unwrap_err().class.name(), "invalid_field");
    running.stop().await;
}

/// The example's `.wasm`; `None` when this toolchain has not the target.
fn compiled() -> Option<PathBuf> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let asked =
        Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).current_dir(root()).output();
    let libraries = String::from_utf8(asked.ok()?.stdout).ok()?;
    if !PathBuf::from(libraries.trim()).exists() {
        return None;
    }
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("words");
    let built = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .current_dir(root().join("evaluators/plugins/examples/words-wasm"))
        .status();
    assert!(built.unwrap().success(), "the example does not compile");
    Some(target.join(TARGET).join("release/words.wasm"))
}
