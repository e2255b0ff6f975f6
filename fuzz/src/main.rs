//! A target under libFuzzer. Which one: `EMBERD_FUZZ_TARGET`. With `EMBERD_FUZZ_SEEDS`, its seeds are written into that
//! directory first. With `EMBERD_FUZZ_TARGET=list`, the targets are listed and that is all.

#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use emberd_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: begin(),
    |input: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(input);
        }
    }
);

fn begin() {
    let name = std::env::var("EMBERD_FUZZ_TARGET").unwrap_or_default();
    if name == "list" {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        #[allow(clippy::disallowed_methods, reason = "the engine owns main, and there is nothing open")]
        std::process::exit(0);
    }
    let found = TARGETS.iter().find(|target| target.name == name);
    let target = found.unwrap_or_else(|| panic!("EMBERD_FUZZ_TARGET is {name:?}, which is no target"));
    if let Some(directory) = std::env::var_os("EMBERD_FUZZ_SEEDS").map(PathBuf::from) {
        for (nth, seed) in (target.seeds)().iter().enumerate() {
            let path = directory.join(format!("seed-{nth:03}"));
            std::fs::write(&path, seed).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        }
    }
    TARGET.get_or_init(|| target);
}
