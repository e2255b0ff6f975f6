//! A plugin's process is killed while a job runs on it, again and again, and sometimes emberd with it: each item once, and none pays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use emberd_evaluators_hosts as hosts;
use emberd_evaluators_jobs::{Config, Engine, Handle};
use emberd_store::jobs::DatasetType;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::{self, World, class, examples, on_both};

on_both!(
    thirty_kills_of_the_plugin,
    a_plugin_that_does_not_come_back_is_waited_for,
    who_kills_the_plugin_fails_alone,
    a_plugin_that_always_dies_fails_its_items,
);

/// 160 examples a second, each begun and ended in the book beside it. "poison" kills it, all of its group; so does every example while `always` lies beside it, and its start while
/// `broken` does.
const SCRIPT: &str = r#"
import asyncio, os, signal, sys
from emberd_plugin import Plugin

beside = os.path.dirname(os.path.abspath(__file__))
if os.path.exists(os.path.join(beside, "broken")):
    sys.exit(1)
plugin = Plugin("slow", concurrent=4)
book = os.open(os.path.join(beside, "book"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@plugin.evaluator(version="1", min=0, max=1)
async def rights(output: str) -> float:
    "Whether it says so."
    if "poison" in output or os.path.exists(os.path.join(beside, "always")):
        os.killpg(0, signal.SIGKILL)
    os.write(book, b"+")
    await asyncio.sleep(0.025)
    os.write(book, b"-")
    return float("right" in output)

plugin.serve()
"#;
const LEASE: Duration = Duration::from_secs(3);
const KILLS: usize = 30;
const PATIENCE: Duration = Duration::from_secs(60);

fn script(world: &World) -> PathBuf {
    let path = world.dir.path().join("slow.py");
    std::fs::write(&path, SCRIPT).unwrap();
    path
}

fn flag(world: &World, name: &str) -> PathBuf {
    world.dir.path().join(name)
}

/// The Python that `.ci/services setup` made, with the library for plugins.
fn plugin(dir: &Path) -> hosts::Config {
    let cache = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/emberd/phoenix");
    let python = std::env::var_os("EMBERD_PHOENIX").map_or_else(cache, PathBuf::from).join("bin/python");
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/sdk");
    let mut command = hosts::Command::new([python.to_str().unwrap(), dir.join("slow.py").to_str().unwrap()]);
    command.env.insert("PYTHONPATH".into(), sdk.to_str().unwrap().into());
    command.env.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
    let mut config = hosts::Config::new(hosts::Source::Command(command));
    config.bounds.deadline = Duration::from_secs(20);
    config.bounds.cooldown = Duration::from_secs(1);
    config
}

/// An engine with the plugin; dropped, it is as if it were killed.
struct Judging {
    handle: Handle,
    hosts: Arc<hosts::Hosts>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Judging {
    fn start(config: Config, store: emberd_store::Store, dir: &Path) -> Self {
        let plugins = BTreeMap::from([("slow".to_owned(), plugin(dir))]);
        let hosts = Arc::new(hosts::Hosts::new(plugins, &dir.join("plugins")).unwrap());
        let engine = Engine::new(config, store, Arc::new(world::Wall), hosts.clone()).unwrap();
        let (handle, stop) = (engine.handle(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let (running, until) = (hosts.clone(), stop.clone());
        tasks.spawn(async move { running.run(&until).await });
        let until = stop.clone();
        tasks.spawn(async move { engine.run(until).await });
        Self { handle, hosts, stop, tasks }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// A job over so many examples, whose outputs these say otherwise.
    async fn create(&self, world: &World, count: usize, otherwise: &[(usize, &str)]) -> Uuid {
        let mut body = examples(count);
        for (nr, output) in otherwise {
            body[*nr]["output"] = json!(output);
        }
        let dataset = world.dataset(DatasetType::Custom, &body).await;
        let since = Instant::now();
        while self.handle.evaluators().iter().all(|one| one.name != "slow/rights") {
            assert!(since.elapsed() < PATIENCE, "{:?}", self.hosts.standings());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.create(&self.handle, dataset, json!({"evaluators": ["slow/rights", "exact_match"]})).await
    }
}

const KEY: &str = "EMBERD_JOBS_PLUGIN_CHILD";

/// What a child runs: this binary again, with this one test.
#[test]
#[ignore = "a child process of other tests"]
fn engine() {
    let Ok(told) = std::env::var(KEY) else { return };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let text = |key: &str| told[key].as_str().unwrap().to_owned();
    world::runtime().block_on(async {
        let (store, dir) = (world::open(&text("url"), text("dir").into()).await, text("dir"));
        let config = Config { lease: LEASE, ..world::config(&text("endpoint")) };
        let mut judging = Judging::start(config, store, Path::new(&dir));
        while judging.tasks.join_next().await.is_some() {}
    });
}

/// An engine in a process of its own; killed when dropped, and its plugin with it.
struct Killable(Child);

impl Killable {
    fn start(world: &World) -> Self {
        let told = json!({"url": world.url, "dir": world.dir.path(), "endpoint": world.endpoint.url()});
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "plugin_kills::engine", "--nocapture", "--test-threads=1"])
            .env(KEY, told.to_string())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The plugin's process: the leader of its group.
fn leader(dir: &Path) -> Option<Pid> {
    let mark = format!("EMBERD_PLUGIN_SOCKET={}", dir.display());
    let of = |process: std::fs::DirEntry| {
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        let environment = std::fs::read(process.path().join("environ")).ok()?;
        let pid = Pid::from_raw(pid)?;
        let is_leader = rustix::process::getpgid(Some(pid)).is_ok_and(|group| group == pid);
        (is_leader && String::from_utf8_lossy(&environment).contains(&mark)).then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().flatten().find_map(of)
}

/// Kills the plugin with its group; false where there is none just now.
fn kill_plugin(dir: &Path) -> bool {
    leader(dir).is_some_and(|pid| rustix::process::kill_process_group(pid, Signal::KILL).is_ok())
}

/// How many examples were begun and not ended: now, and in the lives before.
fn in_hand(world: &World) -> i64 {
    let book = std::fs::read(world.dir.path().join("book")).unwrap_or_default();
    book.iter().map(|byte| if *byte == b'+' { 1 } else { -1 }).sum()
}

fn random(below: u64) -> Duration {
    Duration::from_millis(Uuid::new_v4().as_u64_pair().1 % below)
}

/// Each item has one result; gives the classes of errors and how often each is.
async fn is_whole(world: &World, job: Uuid, count: usize) -> Value {
    let row = world.over(job).await;
    let results = world.results(job).await;
    let keys: BTreeSet<(i64, i64)> = results.iter().map(|result| (result.nr, result.step)).collect();
    assert_eq!((results.len(), keys.len()), (2 * count, 2 * count), "each item exactly once");
    assert_eq!(row.status, "completed");
    for result in results.iter().filter(|result| class(result).is_none()) {
        let score = result.scored.outcome.as_ref().unwrap().score;
        assert_eq!(score, Some(f64::from(u8::from(result.nr % 3 == 0))), "{result:?}");
    }
    row.metrics.unwrap()["errors"].clone()
}

/// SIGKILL of the plugin at thirty random moments, its starts among them, and of emberd with it after every sixth.
async fn thirty_kills_of_the_plugin(world: World) {
    const COUNT: usize = 1_500;
    script(&world);
    let maker = Judging::start(Config { lease: LEASE, ..world.config() }, world.store.clone(), world.dir.path());
    let job = maker.create(&world, COUNT, &[]).await;
    maker.stop().await;
    let mut emberd = Killable::start(&world);
    let (mut kills, mut engines, mut at_work) = (0, 0, 0);
    while kills < KILLS {
        let since = Instant::now();
        while leader(world.dir.path()).is_none() {
            assert!(since.elapsed() < PATIENCE, "no plugin");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before = in_hand(&world);
        // Every third dies while it starts, or whenever; others at work.
        while kills % 3 > 0 && in_hand(&world) <= before {
            assert!(since.elapsed() < PATIENCE, "it is asked nothing");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(random(500)).await;
        if kill_plugin(world.dir.path()) {
            kills += 1;
            at_work += usize::from(in_hand(&world) > before);
            if kills % 6 == 0 {
                drop(emberd);
                emberd = Killable::start(&world);
                engines += 1;
            }
        }
        let row = world.store.evaluation(job).await.unwrap().unwrap();
        assert!(row.completed_at.is_none(), "over after {kills} kills: make it longer");
    }
    let errors = is_whole(&world, job, COUNT).await;
    drop(emberd);
    assert!(at_work >= KILLS / 3, "{at_work} kills found it at work");
    // Only an example that was alone in its hands at two kills fails: nobody can tell it from one that kills.
    let faults = errors["plugin_fault"].as_u64().unwrap_or(0);
    assert!(errors.as_object().unwrap().keys().all(|class| class == "plugin_fault") && faults <= 2, "{errors}");
    eprintln!(
        "{}: {kills} kills of the plugin, {at_work} of them at work, {engines} of emberd: {} results, {faults} errors",
        world.store.kind(),
        2 * COUNT
    );
}

/// A plugin that is down costs nobody anything: its items wait until it is back.
async fn a_plugin_that_does_not_come_back_is_waited_for(world: World) {
    script(&world);
    let judging = Judging::start(world.config(), world.store.clone(), world.dir.path());
    let job = judging.create(&world, 300, &[]).await;
    let since = Instant::now();
    while world.store.progress(job).await.unwrap().done < 310 {
        assert!(since.elapsed() < PATIENCE, "nothing happens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::write(flag(&world, "broken"), "").unwrap();
    assert!(kill_plugin(world.dir.path()));
    // Its starts fail after 100, 200, 400 ms and so on; after the third nobody waits for the next in his place.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(judging.hosts.standings()[0].status, hosts::Status::Down);
    let progress = world.store.progress(job).await.unwrap();
    assert_eq!((progress.failed, progress.done < 600), (0, true), "{progress:?}");
    std::fs::remove_file(flag(&world, "broken")).unwrap();
    assert_eq!(is_whole(&world, job, 300).await, json!({}));
    judging.stop().await;
}

/// One example that kills the plugin whenever it is asked about fails alone; those beside it do not.
async fn who_kills_the_plugin_fails_alone(world: World) {
    script(&world);
    let judging = Judging::start(world.config(), world.store.clone(), world.dir.path());
    let job = judging.create(&world, 150, &[(31, "poison")]).await;
    assert_eq!(is_whole(&world, job, 150).await, json!({"plugin_fault": 1}));
    let results = world.results(job).await;
    let failed: Vec<_> = results.iter().filter(|result| class(result).is_some()).collect();
    assert_eq!((failed.len(), failed[0].nr), (1, 31), "{failed:?}");
    judging.stop().await;
}

/// What dies of everything does not keep a job waiting: its circuit opens, and what was in hand fails.
async fn a_plugin_that_always_dies_fails_its_items(world: World) {
    script(&world);
    let judging = Judging::start(world.config(), world.store.clone(), world.dir.path());
    std::fs::write(flag(&world, "always"), "").unwrap();
    let job = judging.create(&world, 150, &[]).await;
    assert_eq!(is_whole(&world, job, 150).await, json!({"plugin_fault": 150}));
    judging.stop().await;
}
