//! An engine in a process of its own, to be killed.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{self, World};

const KEY: &str = "EMBERD_JOBS_CHILD";

/// What the child runs: this binary again, with this one test.
#[test]
#[ignore = "a child process of other tests"]
fn engine() {
    let Ok(told) = std::env::var(KEY) else { return };
    // Nobody else ends it, should the test be killed.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let text = |key: &str| told[key].as_str().unwrap().to_owned();
    world::runtime().block_on(async {
        let store = world::open(&text("url"), text("dir").into()).await;
        let mut config = world::config(&text("endpoint"));
        config.lease = Duration::from_millis(told["lease_ms"].as_u64().unwrap());
        config.endpoints[0].concurrency_max = told["concurrency"].as_u64().unwrap() as u32;
        let engine = world::engine(config, store, std::path::Path::new(&text("dir")));
        engine.run(tokio_util::sync::CancellationToken::new()).await;
    });
}

/// A child; killed when dropped.
pub(crate) struct Killable(Child);

impl Killable {
    pub(crate) fn start(world: &World, lease: Duration, concurrency: u32) -> Self {
        let told = json!({
            "url": world.url, "dir": world.dir.path(), "endpoint": world.endpoint.url(),
            "lease_ms": lease.as_millis() as u64, "concurrency": concurrency,
        });
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child::engine", "--nocapture", "--test-threads=1"])
            .env(KEY, told.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.kill();
    }
}
