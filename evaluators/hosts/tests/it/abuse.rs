//! Plugins that hang, die, flood and lie, each with what it costs: its own examples a failure of a known class, or itself its place.
//!
//! Scenario: several abusive plugins run in one host, beside two healthy ones (a process and a module) that are asked all the time.
//! Guarantees: each abusive one has its expected outcomes; every answer of the healthy ones is right and in time; emberd's own memory
//! stays within bounds; nothing is left of any process when the host has stopped.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::modules::Module;
use crate::support::{Running, examples, python_plugin, root, word, words};
use emberd_evaluators_hosts::{Config, ProcessLimits, Source, Status, WasmLimits};
use emberd_evaluators_kit::{Evaluator as _, Spec, collect};
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;

/// What a plugin's abuse costs.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// Its examples "one", "poison" and "two" this.
    Each([&'static str; 3]),
    /// Itself its place: it is down, and the reason has these words.
    Down(&'static str),
}
use Expect::{Down, Each};

const OK: Expect = Each(["ok"; 3]);
const FAULT: Expect = Each(["plugin_fault"; 3]);
const LATE: Expect = Each(["timeout"; 3]);
/// The poison costs itself its score, and nobody else.
const ISOLATED: Expect = Each(["ok", "plugin_fault", "ok"]);

/// Processes, by the mode of `abusive.py`.
const PROCESSES: [(&str, Expect); 69] = [
    // Hanging.
    ("hang", LATE),
    ("ignore_sigterm", LATE),
    ("escapee", LATE),
    ("busy_for_ever", LATE),
    ("stopped", LATE),
    ("slow_drip", Each(["ok", "timeout", "timeout"])),
    ("slow_start", Down("not listen")),
    ("silent_socket", Down("describe itself in time")),
    ("http1", Down(":")),
    // Dying.
    ("crash_at_start", Down("exit code 1")),
    ("crash_on_one", ISOLATED),
    ("segv_on_one", ISOLATED),
    ("kill_own_group", ISOLATED),
    ("exit_0_midway", OK),
    ("dies_when_ready", Down("it ended")),
    ("raises", ISOLATED),
    ("refuses", FAULT),
    // Taking.
    ("oom", ISOLATED),
    ("hog", ISOLATED),
    ("fork_bomb", ISOLATED),
    ("fill_fds", ISOLATED),
    ("fill_disk", ISOLATED),
    // Flooding.
    ("line_of_1_gib", OK),
    ("many_lines", OK),
    ("not_utf8", OK),
    ("closes_its_pipes", OK),
    ("too_many_results", FAULT),
    ("streams_for_ever", OK),
    ("empty_for_ever", FAULT),
    ("reply_of_64_mib", FAULT),
    ("huge_description", Down("OutOfRange")),
    ("many_evaluators", Down("1001 evaluators")),
    ("many_scores", FAULT),
    ("long_explanation", OK),
    ("long_label", FAULT),
    ("unknown_class", FAULT),
    ("deep_metadata", FAULT),
    // Lying.
    ("nan", FAULT),
    ("infinite", FAULT),
    ("enormous", FAULT),
    ("negative", FAULT),
    ("undeclared_label", FAULT),
    ("undeclared_score", FAULT),
    ("same_score_twice", FAULT),
    ("neither_number_nor_label", FAULT),
    ("no_scores", FAULT),
    ("empty_result", FAULT),
    ("both", Each(["refusal"; 3])),
    ("wrong_direction", FAULT),
    ("unknown_direction", FAULT),
    ("metadata_is_no_object", FAULT),
    ("huge_cost", FAULT),
    ("nan_cost", FAULT),
    ("foreign_ids", FAULT),
    ("double_results", OK),
    ("no_results", FAULT),
    ("half_closed", FAULT),
    ("garbage_reply", FAULT),
    ("changes_its_description", FAULT),
    // Describing itself as what it cannot be.
    ("garbage_description", Down("decode")),
    ("wrong_contract", Down("version 2 of the contract")),
    ("wrong_service", Down("Unimplemented")),
    ("bad_plugin_name", Down("../x")),
    ("bad_name", Down("../x")),
    ("same_name_twice", Down("two evaluators")),
    ("describes_nothing", Down("0 evaluators")),
    ("bad_path", Down("path")),
    ("no_direction", Down("no direction")),
    ("nan_range", Down("range")),
];

/// Modules.
fn wasm_cases() -> Vec<(&'static str, Vec<u8>, Expect)> {
    let good = Module::default;
    let with = |evaluate| Module { evaluate: Some(evaluate), ..good() }.wasm();
    let answering = |answer: &str| Module { answer: answer.into(), ..good() }.wasm();
    let more = |more| Module { more, ..good() }.wasm();
    let described = |from: &str, to: &str| {
        let describe = good().describe.replace(from, to);
        assert_ne!(describe, good().describe);
        Module { describe, ..good() }.wasm()
    };
    vec![
        ("endless_loop", with("(loop $on (br $on)) (i64.const 0)"), LATE),
        ("endless_start", more("(func $s (loop $on (br $on))) (start $s)"), Down("fuel")),
        ("endless_alloc", Module { alloc: "(loop $on (br $on)) (i32.const 0)", ..good() }.wasm(), LATE),
        (
            "memory_bomb",
            with("(loop $on (br_if $on (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable"),
            FAULT,
        ),
        ("memory_of_4_gib", Module { memory: "65536", ..good() }.wasm(), Down(":")),
        ("table_bomb", more("(table 10000000 funcref)"), Down(":")),
        (
            "many_tables",
            more("(table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)"),
            Down("too many tables"),
        ),
        ("deep_recursion", with("(call $evaluate (local.get 0) (local.get 1))"), FAULT),
        ("answer_out_of_bounds", with("(i64.const 0x7fffffff00000010)"), FAULT),
        ("answer_of_4_gib", with("(i64.const 0x00000000ffffffff)"), FAULT),
        ("alloc_gives_garbage", Module { alloc: "(i32.const -1)", ..good() }.wasm(), FAULT),
        ("traps", with("unreachable"), FAULT),
        ("divides_by_zero", with("(i64.div_s (i64.const 1) (i64.const 0))"), FAULT),
        ("not_json", answering("no"), FAULT),
        ("deep_json", answering(&"[".repeat(10_000)), FAULT),
        ("nan_json", answering(r#"{"results": [{"id": 1, "scores": [{"score": NaN}]}]}"#), FAULT),
        ("infinite_json", answering(r#"{"results": [{"id": 1, "scores": [{"score": 1e999}]}]}"#), FAULT),
        (
            "scores_and_error",
            answering(r#"{"results": [{"id": 1, "scores": [{"score": 0.5}], "error": {"class": "parse"}}]}"#),
            FAULT,
        ),
        ("empty_answer", answering("{}"), FAULT),
        ("no_results", answering(r#"{"results": []}"#), FAULT),
        (
            "unknown_import",
            more(r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#),
            Down("wasi"),
        ),
        ("wrong_abi", described("\"contract\": 1", "\"contract\": 2"), Down("version 2")),
        ("bad_name", described("\"name\": \"x\", \"version\"", "\"name\": \"../x\", \"version\""), Down("../x")),
        ("describes_rubbish", described("{\"contract\"", "[\"contract\""), Down("its description")),
        ("no_exports", wat::parse_str("(module)").unwrap(), Down("memory")),
        ("wrong_signature", wrong_signature(), FAULT),
        ("not_a_module", b"#!/bin/sh\n".to_vec(), Down("not a module")),
        ("truncated", good().wasm()[..100].to_vec(), Down("not a module")),
    ]
}

fn wrong_signature() -> Vec<u8> {
    let describe = Module::default().describe.replace('\n', " ").replace('"', "\\\"");
    let packed = (1024_u64 << 32) | describe.replace('\\', "").len() as u64;
    wat::parse_str(format!(
        r#"(module (memory (export "memory") 2) (data (i32.const 1024) "{describe}")
            (func (export "alloc") (param i32) (result i32) (i32.const 32768))
            (func (export "describe") (result i64) (i64.const {packed}))
            (func (export "evaluate") (param f64)))"#
    ))
    .unwrap()
}

/// A plugin and what it is to cost.
struct Case {
    name: String,
    config: Config,
    expect: Expect,
}

fn abusive(mode: &str) -> Config {
    let script = root().join("evaluators/hosts/tests/it/abusive.py");
    let mut config = python_plugin(&[script.to_str().unwrap(), mode]);
    config.bounds.deadline = Duration::from_secs(4);
    // Those that never get ready are not waited for as long as those that do.
    config.bounds.start = Duration::from_secs(if matches!(mode, "slow_start" | "silent_socket") { 3 } else { 60 });
    config.bounds.grace = Duration::from_secs(1);
    let Source::Command(command) = &mut config.source else { unreachable!() };
    let usual = ProcessLimits::default();
    // A bomb of processes is to be seen by their number, not by their memory.
    let resident_bytes = if mode == "fork_bomb" { 64 << 30 } else { 400 << 20 };
    command.limits = ProcessLimits { open_files: 256, file_bytes: 16 << 20, resident_bytes, ..usual };
    config
}

fn module(path: &Path) -> Config {
    let mut config = Config::new(Source::Wasm { module: path.to_owned(), limits: WasmLimits::default() });
    config.bounds.deadline = Duration::from_secs(4);
    config
}

/// No more than this, whatever plugins do: two modules' memory at its largest, and some buffers.
const RSS_GROWTH_MAX: u64 = 192 << 20;
/// The healthy ones' deadline.
const HEALTHY_DEADLINE: Duration = Duration::from_secs(10);

/// Runs these cases in one host, beside the healthy plugins.
async fn run(cases: Vec<Case>, dir: &Path) {
    let mut plugins: BTreeMap<String, Config> =
        cases.iter().map(|case| (case.name.clone(), case.config.clone())).collect();
    let mut healthy = python_plugin(&[root().join("evaluators/plugins/examples/shout.py").to_str().unwrap()]);
    healthy.bounds.deadline = HEALTHY_DEADLINE;
    plugins.insert("shout".into(), healthy);
    let path = dir.join("healthy.wasm");
    std::fs::write(&path, Module::default().wasm()).unwrap();
    plugins.insert("healthy-module".into(), module(&path));
    let running = Running::start(plugins, dir);
    let metrics = [running.metric("shout/shouts").await, running.metric("healthy-module/x").await];

    let done = AtomicBool::new(false);
    let peak = AtomicU64::new(0);
    let base = resident_bytes();
    let before = Instant::now();
    let beside = async {
        let (mut rounds, mut slowest) = (0, Duration::ZERO);
        while !done.load(Ordering::Relaxed) || rounds == 0 {
            for metric in &metrics {
                let asked = Instant::now();
                let given = words(metric, &examples(&["Aa", "b", "C"])).await;
                assert_eq!(given, ["ok"; 3], "the healthy {} beside them", metric.describe().name);
                slowest = slowest.max(asked.elapsed());
            }
            rounds += 1;
            peak.fetch_max(resident_bytes(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (rounds, slowest)
    };
    let abused = async {
        let wrong: Vec<String> =
            join_all(cases.iter().map(|case| check(&running, case))).await.into_iter().flatten().collect();
        done.store(true, Ordering::Relaxed);
        wrong
    };
    let (wrong, (rounds, slowest)) = tokio::join!(abused, beside);
    let grown = peak.into_inner().saturating_sub(base);
    let stopping = Instant::now();
    running.stop().await;
    println!(
        "{} cases in {:.1?}: {} healthy rounds, slowest answer {slowest:.1?}; memory grew by {} MiB at most; stopped in {:.1?}",
        cases.len(),
        before.elapsed(),
        rounds,
        grown >> 20,
        stopping.elapsed()
    );
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(slowest < HEALTHY_DEADLINE, "a healthy plugin took {slowest:?}");
    assert!(grown < RSS_GROWTH_MAX, "memory grew by {grown} bytes");
    assert_eq!(left_behind(dir), Vec::<String>::new(), "processes outlive their host");
}

/// What is not as expected.
async fn check(running: &Running, case: &Case) -> Option<String> {
    match case.expect {
        Each(expected) => {
            let spec = Spec { name: format!("{}/x", case.name), ..Spec::default() };
            let metric = match running.hosts.evaluator(&spec, Duration::from_secs(60)).await {
                Ok(metric) => metric,
                Err(error) => return Some(format!("{}: {error}", case.name)),
            };
            let outcomes = collect(&*metric, &examples(&["one", "poison", "two"])).await;
            for outcome in &outcomes {
                match &outcome.result {
                    Ok(scores) => assert!(scores[0].explanation.as_ref().is_none_or(|text| text.len() <= 16 << 10)),
                    Err(failure) => assert!(failure.message.len() <= 1 << 10),
                }
            }
            let given: Vec<_> = outcomes.iter().map(word).collect();
            (given != expected).then(|| format!("{}: {given:?}, not {expected:?}: {outcomes:?}", case.name))
        }
        Down(words) => {
            let by = Instant::now() + Duration::from_secs(60);
            loop {
                let standing = running.hosts.standings().into_iter().find(|standing| standing.plugin == case.name)?;
                let why = standing.why.unwrap_or_default();
                if standing.status == Status::Down && why.contains(words) {
                    return None;
                }
                if Instant::now() > by {
                    return Some(format!("{}: {:?} {why:?}, not down for {words:?}", case.name, standing.status));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Processes that were started for plugins below this directory and still run.
fn left_behind(dir: &Path) -> Vec<String> {
    let mark = format!("EMBERD_PLUGIN_SOCKET={}", dir.display());
    let mut left = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let is_zombie = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
        if String::from_utf8_lossy(&environment).contains(&mark) && !is_zombie {
            left.push(String::from_utf8_lossy(&environment).replace('\0', " "));
        }
    }
    left
}

/// Some modes at a time: a machine of two cores is to be busy, not drowned.
async fn processes(range: std::ops::Range<usize>) {
    let only = std::env::var("EMBERD_ABUSE").unwrap_or_default();
    let chosen: Vec<_> = PROCESSES[range].iter().filter(|(mode, _)| only.is_empty() || only == *mode).collect();
    for cases in chosen.chunks(6) {
        let dir = tempfile::tempdir().unwrap();
        let case =
            |(mode, expect): &&(&str, Expect)| Case { name: mode.to_string(), config: abusive(mode), expect: *expect };
        run(cases.iter().map(case).collect(), dir.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_hang_die_and_take() {
    processes(0..22).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_flood() {
    processes(22..37).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_lie() {
    processes(37..PROCESSES.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_that_misbehave() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    for (name, bytes, expect) in wasm_cases() {
        let path = dir.path().join(format!("{name}.wasm"));
        std::fs::write(&path, bytes).unwrap();
        cases.push(Case { name: name.into(), config: module(&path), expect });
    }
    let sparse = dir.path().join("sparse.wasm");
    std::fs::File::create(&sparse).unwrap().set_len(1 << 30).unwrap();
    cases.push(Case { name: "module_of_1_gib".into(), config: module(&sparse), expect: Down("larger") });
    cases.push(Case { name: "no_file".into(), config: module(&dir.path().join("none")), expect: Down("cannot read") });
    cases.push(Case {
        name: "endless_file".into(),
        config: module(Path::new("/dev/zero")),
        expect: Down("not a file"),
    });
    run(cases, dir.path()).await;
}

/// Peers that are no plugin, or none any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_where_no_plugin_is() {
    let dir = tempfile::tempdir().unwrap();
    let listen = || async { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let url = |listener: &tokio::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let (closed, silent, web, hasty) = (listen().await, listen().await, listen().await, listen().await);
    let case = |name: &str, url: String, words| {
        let mut config = Config::new(Source::Address(url));
        config.bounds.start = Duration::from_secs(2);
        Case { name: name.into(), config, expect: Down(words) }
    };
    let cases = vec![
        case("nobody", url(&closed), "Unavailable"),
        case("silent", url(&silent), "in time"),
        case("web", url(&web), ":"),
        case("hasty", url(&hasty), ":"),
    ];
    drop(closed);
    let peers = async {
        let mut held = Vec::new();
        loop {
            tokio::select! {
                Ok((peer, _)) = silent.accept() => held.push(peer),
                Ok((mut peer, _)) = web.accept() => {
                    let _ = peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                }
                Ok((peer, _)) = hasty.accept() => drop(peer),
            }
        }
    };
    tokio::select! {
        () = run(cases, dir.path()) => {}
        () = peers => {}
    }
}

/// Five faults in a row open an evaluator's circuit: nobody waits for it. A while later one batch asks, and closes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_circuit_opens_after_five_faults_and_a_probe_closes_it() {
    let dir = tempfile::tempdir().unwrap();
    let switch = dir.path().join("lie");
    std::fs::write(&switch, "").unwrap();
    let script = root().join("evaluators/hosts/tests/it/abusive.py");
    let mut config = python_plugin(&[script.to_str().unwrap(), "nan_while", switch.to_str().unwrap()]);
    config.bounds.cooldown = Duration::from_millis(1500);
    let running = Running::start(BTreeMap::from([("liar".into(), config)]), &dir.path().join("run"));
    let metric = running.metric("liar/x").await;
    let batch = examples(&["one"]);
    for _ in 0..5 {
        let failure = collect(&*metric, &batch).await.remove(0).result.unwrap_err();
        assert!(failure.message.contains("finite"), "{failure}");
    }
    let by = Instant::now() + Duration::from_secs(30);
    let failure = loop {
        assert!(Instant::now() < by, "the circuit does not open");
        // The plugin is started afresh when the circuit opens; the circuit stays as it is.
        let failure = collect(&*metric, &batch).await.remove(0).result.unwrap_err();
        if failure.retry_after.is_some() {
            break failure;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(failure.message.contains("circuit"), "{failure}");
    assert_eq!(running.hosts.standings()[0].open_circuits, ["x"]);
    std::fs::remove_file(&switch).unwrap();
    let by = Instant::now() + Duration::from_secs(30);
    while words(&metric, &batch).await != ["ok"] {
        assert!(Instant::now() < by, "the circuit stays open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(running.hosts.standings()[0].open_circuits.is_empty());
    running.stop().await;
}

/// An example that kills the plugin takes no other with it, neither of its own batch nor of those that were asked at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_takes_no_other_batch_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = abusive("crash_on_one_of_many");
    config.bounds.deadline = Duration::from_secs(20);
    let running = Running::start(BTreeMap::from([("dies".into(), config)]), dir.path());
    let metric = running.metric("dies/x").await;
    let batches: Vec<_> = (0..12)
        .map(|at| match at {
            2 => examples(&["one", "poison", "two"]),
            at if at % 2 == 0 => examples(&["one", "two", "three"]),
            _ => examples(&["one"]),
        })
        .collect();
    let given = join_all(batches.iter().map(|batch| words(&metric, batch))).await;
    for (at, words) in given.iter().enumerate() {
        let expected: &[&str] = if at == 2 { &["ok", "plugin_fault", "ok"] } else { &["ok"; 3][..words.len()] };
        assert_eq!(words, expected, "batch {at}: {given:?}");
    }
    running.stop().await;
}
