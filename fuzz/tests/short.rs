//! Every target over its corpus, and over seeded mutations of it: what CI runs of the fuzzing, without an engine.
//!
//! `EMBERD_FUZZ_EXECUTIONS` says how many mutations each target gets, `EMBERD_FUZZ_ONLY` names one target,
//! `EMBERD_FUZZ_INPUT` a file that it is given instead: a crash that the engine found, say.

use std::fs;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use emberd_fuzz::mutate::{Dice, mutated};
use emberd_fuzz::{TARGETS, Target};

/// Mutations of each target, as many as fit its share of time.
const EXECUTIONS: usize = 4_000;
/// A slow target on a busy machine runs fewer: this bounds the whole test to about a minute.
const TIME_MAX: Duration = Duration::from_secs(4);
/// However slow it is, so many.
const EXECUTIONS_MIN: usize = 300;

/// The inputs that are kept for a target, in the order of their names, and its seeds.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("no {}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    let read = |path: &std::path::PathBuf| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    paths.iter().map(read).chain((target.seeds)()).collect()
}

/// Runs one input; says what was broken, if something was.
fn broken(target: &Target, input: &[u8]) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| (target.run)(input))).err()?;
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let shown: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{}: {}\n  input: {shown}", target.name, text.unwrap_or("it panicked")))
}

/// How many inputs a target ran, and what broke first.
fn tried(target: &Target, executions: usize) -> (usize, Option<String>) {
    if let Some(path) = std::env::var_os("EMBERD_FUZZ_INPUT") {
        return (1, broken(target, &fs::read(path).expect("EMBERD_FUZZ_INPUT can be read")));
    }
    let corpus = corpus(target);
    let mut dice = Dice::new(TARGETS.iter().position(|other| other.name == target.name).unwrap_or(0) as u64);
    let (began, mut run) = (Instant::now(), 0);
    for input in &corpus {
        run += 1;
        if let Some(what) = broken(target, input) {
            return (run, Some(what));
        }
    }
    for nth in 0..executions {
        if nth >= EXECUTIONS_MIN && executions == EXECUTIONS && began.elapsed() > TIME_MAX {
            break;
        }
        run += 1;
        if let Some(what) = broken(target, &mutated(&corpus, &mut dice)) {
            return (run, Some(what));
        }
    }
    (run, None)
}

#[test]
fn every_target_keeps_its_laws() {
    let executions =
        std::env::var("EMBERD_FUZZ_EXECUTIONS").ok().map_or(EXECUTIONS, |text| text.parse().expect("a number"));
    let only = std::env::var("EMBERD_FUZZ_ONLY").ok();
    let targets: Vec<&Target> =
        TARGETS.iter().filter(|target| only.as_ref().is_none_or(|name| name == target.name)).collect();
    assert!(!targets.is_empty(), "there is no target {only:?}");
    let (next, run, all_broken) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (count, what) = tried(target, executions);
                    run.fetch_add(count, Ordering::Relaxed);
                    all_broken.lock().unwrap_or_else(PoisonError::into_inner).extend(what);
                }
            });
        }
    });
    let all_broken = all_broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    let _ = writeln!(
        std::io::stderr(),
        "figure F7 {{\"targets\":{},\"executions\":{},\"crashes_open\":{}}}",
        targets.len(),
        run.into_inner(),
        all_broken.len()
    );
    assert!(all_broken.is_empty(), "{}", all_broken.join("\n"));
}

/// No two targets share a name, and a corpus belongs to a target.
#[test]
fn every_corpus_has_its_target() {
    let names: std::collections::BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len());
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let kept = fs::read_dir(directory).expect("there are corpora");
    let kept = kept.map(|entry| entry.expect("it can be listed").file_name().into_string().expect("a plain name"));
    assert_eq!(kept.collect::<std::collections::BTreeSet<_>>(), names);
}
