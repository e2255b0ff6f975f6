//! What the caches do: how long authenticated reads take while Redis is up, stalled, killed and back, and how many profiles are found for a
//! thousand users who come as Zipf's law has it.
//!
//! The real binary over SQLite, on a free port; the load is this process. Redis is the one that `.ci/services setup` unpacks.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use emberd_identity::bridge::Bridge;
use emberd_identity::claims::Party;
use emberd_identity::{Permissions, Secret, User};
use emberd_model::UnixNanos;
use serde_json::Value;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::table;

const SECRET: &str = "a secret of more than thirty-two bytes";
const USERS: usize = 1_000;
const CALLERS: usize = 8;

#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Seconds of each phase
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Requests of the mix of users
    #[arg(long, default_value_t = 30_000)]
    requests: usize,
    /// Requests a second of the mix of users; 0: as fast as they go
    #[arg(long, default_value_t = 0)]
    pace: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 5, requests: 30_000, pace: 0 }
    }
}

struct Redis(tempfile::TempDir);

impl Redis {
    fn services(&self, what: &str) -> Command {
        let mut command = Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.ci/services"));
        command.arg(what).arg(self.0.path());
        command
    }

    fn up(&self) -> anyhow::Result<String> {
        let started = self.services("redis").output()?;
        ensure!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        Ok(String::from_utf8(started.stdout)?.trim().to_owned())
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = std::fs::read_to_string(self.0.path().join("pid"))?;
        ensure!(Command::new("kill").arg(signal).arg(pid.trim()).status()?.success(), "cannot signal Redis");
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.services("stop").stdout(Stdio::null()).status();
    }
}

/// An emberd with a home of its own.
struct Emberd {
    child: Child,
    api: String,
    _home: tempfile::TempDir,
}

impl Emberd {
    fn start(redis: Option<&str>, users: usize) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("emberd");
        ensure!(program.exists(), "no {}: build emberd-daemon in the same profile", program.display());
        let home = tempfile::tempdir()?;
        let mut command = Command::new(&program);
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("EMBERD_") {
                command.env_remove(key);
            }
        }
        command
            .args(["serve", "--data-dir"])
            .arg(home.path())
            .envs([("EMBERD_INTAKE_GRPC", "127.0.0.1:0"), ("EMBERD_INTAKE_HTTP", "127.0.0.1:0")])
            .envs([
                ("EMBERD_API_LISTEN", "127.0.0.1:0"),
                ("EMBERD_PHOENIX_OTLP", ""),
                ("EMBERD_ARCHIVE_ENABLED", "false"),
                ("SHARED_JWT_SECRET", SECRET),
            ])
            .envs([("EMBERD_API_RATE", "1000000"), ("EMBERD_API_BURST", "1000000")])
            .env("EMBERD_CACHE_USERS", users.to_string())
            .env("REDIS_URL", redis.unwrap_or_default())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().context("cannot start emberd")?;
        let (run, since) = (home.path().join("run.json"), Instant::now());
        let api = loop {
            let told = std::fs::read(&run).ok().and_then(|told| serde_json::from_slice::<Value>(&told).ok());
            if let Some(api) = told.as_ref().and_then(|told| told["api"].as_str()) {
                break format!("http://{api}");
            }
            ensure!(since.elapsed() < Duration::from_secs(60), "emberd does not come up");
            std::thread::sleep(Duration::from_millis(20));
        };
        Ok(Self { child, api, _home: home })
    }

    async fn cache(&self, client: &reqwest::Client, token: &str) -> anyhow::Result<Value> {
        let health = client.get(format!("{}/api/phoenix/health", self.api)).bearer_auth(token).send().await?;
        let health: Value = serde_json::from_slice(&health.bytes().await?)?;
        Ok(health["cache"].clone())
    }

    async fn until(&self, client: &reqwest::Client, token: &str, state: &str) -> anyhow::Result<Duration> {
        let since = Instant::now();
        while self.cache(client, token).await?["stats"]["redis"]["state"] != state {
            ensure!(since.elapsed() < Duration::from_secs(60), "Redis does not become {state}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(since.elapsed())
    }
}

impl Drop for Emberd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn token(nth: usize) -> anyhow::Result<String> {
    #[allow(clippy::disallowed_methods, reason = "tokens are for now")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let party = Party { issuer: "sambatv-prompt-library".into(), audience: "phoenix-service".into() };
    let id = Uuid::from_u128(0x00be_0000 + nth as u128);
    let user = User {
        id,
        subject: id.to_string(),
        email: Some(format!("{nth}@example.com")),
        name: None,
        role: "member".into(),
        department: None,
        permissions: Permissions::of_role(false),
    };
    let bridge = Bridge::new(Secret::new(SECRET)?, party, "p".into(), "c".into());
    Ok(bridge.token(&user, UnixNanos(now)).text)
}

/// Users as Zipf's law has them: the nth comes 1/n as often as the first.
struct Zipf {
    below: Vec<f64>,
    state: u64,
}

impl Zipf {
    fn new(seed: u64) -> Self {
        let mut sum = 0.0;
        let below = (1..=USERS).map(|nth| {
            sum += 1.0 / nth as f64;
            sum
        });
        Self { below: below.collect(), state: seed }
    }

    fn next(&mut self) -> usize {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        let at = part * self.below.last().copied().unwrap_or(1.0);
        self.below.partition_point(|below| *below <= at).min(USERS - 1)
    }
}

/// Who calls.
struct Callers {
    client: reqwest::Client,
    tokens: Vec<String>,
    url: String,
}

impl Callers {
    fn of(emberd: &Emberd) -> anyhow::Result<Arc<Self>> {
        let tokens = (0..USERS).map(token).collect::<anyhow::Result<_>>()?;
        Ok(Arc::new(Self {
            client: reqwest::Client::new(),
            tokens,
            url: format!("{}/api/prompts?limit=1", emberd.api),
        }))
    }

    async fn one(&self, user: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let answer = self.client.get(&self.url).bearer_auth(&self.tokens[user]).send().await?;
        let status = answer.status();
        answer.bytes().await?;
        ensure!(status == 200, "{status}");
        Ok(began.elapsed())
    }

    /// Calls until `stop`, or so many; the times they took.
    async fn call(
        self: &Arc<Self>,
        seed: u64,
        each: usize,
        pause: Duration,
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Vec<Duration>> {
        let mut all = JoinSet::new();
        for caller in 0..CALLERS {
            let (this, stop) = (Arc::clone(self), Arc::clone(stop));
            all.spawn(async move {
                let (mut zipf, mut times) = (Zipf::new(seed + caller as u64), Vec::new());
                while times.len() < each && !stop.load(Ordering::Relaxed) {
                    times.push(this.one(zipf.next()).await?);
                    tokio::time::sleep(pause).await;
                }
                Ok::<_, anyhow::Error>(times)
            });
        }
        let mut times = Vec::new();
        while let Some(done) = all.join_next().await {
            times.extend(done??);
        }
        times.sort();
        Ok(times)
    }
}

/// Reads while Redis is in each of its states. So few profiles are in memory that every second read asks Redis.
async fn states(options: &Options) -> anyhow::Result<()> {
    let redis = Redis(tempfile::Builder::new().prefix("emberd-bench-").tempdir()?);
    let emberd = Emberd::start(Some(&redis.up()?), 20)?;
    let (callers, phase) = (Callers::of(&emberd)?, Duration::from_secs(options.seconds));
    let (client, admin) = (callers.client.clone(), callers.tokens[0].clone());
    emberd.until(&client, &admin, "up").await?;
    let mut rows = Vec::new();
    for (seed, what) in
        ["up", "stalled", "stalled, later", "back", "killed", "killed, later", "back, empty"].into_iter().enumerate()
    {
        let stop = Arc::new(AtomicBool::new(false));
        let happens = async {
            match what {
                "stalled" => redis.signal("-STOP")?,
                "back" => redis.signal("-CONT")?,
                "killed" => redis.signal("-KILL")?,
                "back, empty" => drop(redis.up()?),
                _ => (),
            }
            tokio::time::sleep(phase).await;
            stop.store(true, Ordering::Relaxed);
            Ok::<_, anyhow::Error>(())
        };
        let calls = callers.call(seed as u64 * 100, usize::MAX, Duration::from_millis(2), &stop);
        let (times, happened) = tokio::join!(calls, happens);
        happened?;
        let times = times?;
        let at = |part: f64| format!("{:.2}", times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e3);
        let slow = times.iter().filter(|time| **time > Duration::from_millis(50)).count();
        let longest = times.last().copied().unwrap_or_default().as_secs_f64() * 1e3;
        let state = emberd.cache(&client, &admin).await?["stats"]["redis"]["state"].as_str().unwrap_or("?").to_owned();
        rows.push(vec![
            what.into(),
            times.len().to_string(),
            at(0.5),
            at(0.99),
            format!("{longest:.1}"),
            slow.to_string(),
            state,
        ]);
    }
    let head = ["Redis", "reads", "p50 ms", "p99 ms", "longest ms", "over 50 ms", "then"];
    table::print("Authenticated reads while Redis is up, stalled and gone", &head, &rows);
    Ok(())
}

/// How many profiles were found, from the first request on.
async fn ratios(options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (what, users, has_redis) in
        [("memory for 10,000", 10_000, false), ("memory for 500", 500, false), ("memory for 500, and Redis", 500, true)]
    {
        let redis = Redis(tempfile::Builder::new().prefix("emberd-bench-").tempdir()?);
        let url = if has_redis { Some(redis.up()?) } else { None };
        let emberd = Emberd::start(url.as_deref(), users)?;
        let callers = Callers::of(&emberd)?;
        if has_redis {
            emberd.until(&callers.client, &callers.tokens[0], "up").await?;
        }
        let pause = Duration::from_secs(CALLERS as u64).checked_div(options.pace).unwrap_or_default();
        let began = Instant::now();
        let each = options.requests / CALLERS;
        let times = callers.call(7, each, pause, &Arc::default()).await?;
        let took = began.elapsed().as_secs_f64();
        let cache = emberd.cache(&callers.client, &callers.tokens[0]).await?;
        let found = &cache["metrics"]["profiles"];
        let percent = |value: &Value| value.as_f64().map_or("–".into(), |ratio| format!("{:.2} %", ratio * 100.0));
        rows.push(vec![
            what.into(),
            times.len().to_string(),
            format!("{:.0}", times.len() as f64 / took),
            percent(&found["ratio"]),
            percent(&found["l1"]["ratio"]),
            percent(&found["l2"]["ratio"]),
            format!("{}", cache["stats"]["profiles"]["entries"]),
            format!("{}", cache["stats"]["profiles"]["bytes"]),
        ]);
    }
    let head = ["profiles", "requests", "a second", "found", "in memory", "of the rest in Redis", "entries", "bytes"];
    table::print("Profiles found for 1,000 users by Zipf's law (s = 1), from a cold start", &head, &rows);
    Ok(())
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        states(options).await?;
        ratios(options).await
    })
}
