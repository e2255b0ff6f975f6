//! No plugin's process outlives emberd, however emberd ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Running, python_plugin};

/// A plugin with children and grandchildren, none of whom ends when asked.
const FAMILY: &str = r"
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.fork()
        time.sleep(600)
from emberd_plugin import Plugin
plugin = Plugin('family')
@plugin.evaluator(version='1')
def x(output): return 1.0
def ready():
    open(sys.argv[1], 'w').write(str(os.getpid()))
ready()
plugin.serve()
";
const VARIABLE: &str = "EMBERD_ORPHANS_DIR";

/// The host that is killed: this test, in a process of its own.
#[tokio::test]
async fn a_host_in_a_process_of_its_own() {
    let Some(dir) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return };
    let pid = dir.join("pid");
    let config = python_plugin(&["-c", FAMILY, pid.to_str().unwrap()]);
    let running = Running::start(BTreeMap::from([("family".into(), config)]), &dir.join("run"));
    running.metric("family/x").await;
    std::fs::write(dir.join("ready"), "").unwrap();
    std::future::pending::<()>().await;
}

/// Scenario: emberd is killed (SIGKILL) while a plugin with six children and grandchildren runs, all deaf to SIGTERM.
/// Guarantees: a few seconds later none of them is there.
#[test]
fn nothing_outlives_a_killed_host() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "orphans::a_host_in_a_process_of_its_own", "--nocapture"])
        .env(VARIABLE, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait("the plugin is ready", || dir.path().join("ready").exists());
    let family = family(dir.path());
    assert_eq!(family.len(), 7, "the plugin, three children, three grandchildren");
    host.kill().unwrap();
    host.wait().unwrap();
    wait("nobody is left", || self::family(dir.path()).is_empty());
}

fn wait(what: &str, is: impl Fn() -> bool) {
    let by = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < by, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The living processes that have the socket of this directory's plugin in their environment.
fn family(dir: &Path) -> Vec<String> {
    let mark = format!("EMBERD_PLUGIN_SOCKET={}", dir.display());
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let is_dead = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
        if !is_dead && String::from_utf8_lossy(&environment).contains(&mark) {
            found.push(process.file_name().to_string_lossy().into_owned());
        }
    }
    found
}
