//! What the tests of plugins share: Python, the host, examples, and what an outcome is in a word.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use emberd_evaluators_hosts::{Command, Config, Hosts, Metric, Source};
use emberd_evaluators_kit::{Example, Outcome, Spec, collect};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Python that `.ci/services setup` made: it has grpcio and arize-phoenix-evals.
pub(crate) fn python() -> String {
    let cache = || {
        let home = std::env::var("HOME").expect("HOME");
        let cache = std::env::var("EMBERD_CACHE").unwrap_or_else(|_| format!("{home}/.cache/emberd"));
        format!("{cache}/phoenix")
    };
    let venv = std::env::var("EMBERD_PHOENIX").unwrap_or_else(|_| cache());
    let python = format!("{venv}/bin/python");
    assert!(Path::new(&python).exists(), "no {python}: run .ci/services setup");
    python
}

/// A Python program as a plugin, with the libraries in `evaluators/plugins`.
pub(crate) fn python_plugin(arguments: &[&str]) -> Config {
    let mut command = Command::new(std::iter::once(python()).chain(arguments.iter().map(|&text| text.to_owned())));
    let plugins = root().join("evaluators/plugins");
    let paths = format!("{0}/sdk:{0}/phoenix-evals", plugins.display());
    command.env.insert("PYTHONPATH".into(), paths);
    command.env.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
    Config::new(Source::Command(command))
}

/// A host that runs until it is stopped.
pub(crate) struct Running {
    pub(crate) hosts: Arc<Hosts>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    #[allow(clippy::disallowed_methods, reason = "the test owns the task")]
    pub(crate) fn start(plugins: BTreeMap<String, Config>, dir: &Path) -> Self {
        let hosts = Arc::new(Hosts::new(plugins, dir).expect("a sound configuration"));
        let stop = CancellationToken::new();
        let (run, until) = (Arc::clone(&hosts), stop.clone());
        let task = tokio::spawn(async move { run.run(&until).await });
        Self { hosts, stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("the host does not panic");
    }

    pub(crate) async fn metric(&self, name: &str) -> Arc<Metric> {
        let spec = Spec { name: name.into(), ..Spec::default() };
        self.hosts.evaluator(&spec, Duration::from_secs(120)).await.unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// Examples with these outputs.
pub(crate) fn examples(outputs: &[&str]) -> Vec<Example> {
    outputs.iter().map(|output| Example { input: "?".into(), output: (*output).into(), ..Example::default() }).collect()
}

/// `ok`, or the class of the failure.
pub(crate) fn word(outcome: &Outcome) -> &'static str {
    outcome.result.as_ref().map_or_else(|failure| failure.class.name(), |_| "ok")
}

/// Judges and gives each outcome in a word.
pub(crate) async fn words(metric: &Metric, batch: &[Example]) -> Vec<&'static str> {
    collect(metric, batch).await.iter().map(word).collect()
}
