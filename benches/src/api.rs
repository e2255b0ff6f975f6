//! The API under the load of a prompt library: reads with tokens, logins, Phoenix's own API through emberd, and sockets that listen.
//!
//! emberd and Phoenix run on core 0, the clients on core 1. Requests go out by the clock, whether or not the ones before were answered, and
//! a latency counts from when its request was due: a stall is not hidden (coordinated omission). Each part has a fresh emberd.

mod client;
mod phoenix;
mod sockets;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};

use self::client::{Asked, Client, User};
use crate::server::{API, Pinned, data, program, unset};
use crate::table;

const OTLP: &str = "127.0.0.1:24318";
const SECRET: &str = "a secret of more than thirty-two bytes";

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Seconds of each part
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Requests a second, of reads and through to Phoenix
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Logins a second
    #[arg(long, default_value_t = 50.0)]
    logins: f64,
    /// Users, of whom the first come most often (Zipf, s = 1)
    #[arg(long, default_value_t = 1_000)]
    users: usize,
    /// Sockets that listen
    #[arg(long, default_value_t = 2_000)]
    sockets: usize,
    /// Events a second
    #[arg(long, default_value_t = 500)]
    events: usize,
    /// A PostgreSQL server's URL, for the same on PostgreSQL; EMBERD_TEST_POSTGRES counts too
    #[arg(long)]
    postgres: Option<String>,
    /// Where Phoenix is installed; EMBERD_PHOENIX counts too. Without it, that part is left out
    #[arg(long)]
    phoenix: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seconds: 20.0,
            rate: 200.0,
            logins: 50.0,
            users: 1_000,
            sockets: 2_000,
            events: 500,
            postgres: None,
            phoenix: None,
        }
    }
}

/// An emberd that asks for tokens, and the folder of its data.
struct Emberd {
    process: Pinned,
    _data: tempfile::TempDir,
}

impl Emberd {
    fn start(store: &str, set: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let data = data()?;
        let secret = data.path().join("secret");
        std::fs::write(&secret, SECRET)?;
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
        let dir = data.path().join("data");
        let process = Pinned::start(0, &program()?, |command| {
            unset(command);
            set(command);
            command
                .args(["serve", "--data-dir"])
                .arg(dir)
                .env("EMBERD_INTAKE_GRPC", "127.0.0.1:0")
                .env("EMBERD_INTAKE_HTTP", OTLP)
                .env("EMBERD_API_LISTEN", API)
                .env("EMBERD_STORE_URL", store)
                .env("EMBERD_API_RATE", "10000")
                .env("EMBERD_API_BURST", "10000")
                .env("EMBERD_IDENTITY_JWT_SECRET_FILE", secret)
                .env("EMBERD_PHOENIX_OTLP", "")
                .env("EMBERD_ARCHIVE_ENABLED", "false")
        })?;
        let since = Instant::now();
        let http = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        while http.block_on(reqwest::get(format!("http://{API}/healthz"))).is_err() {
            ensure!(since.elapsed() < Duration::from_secs(30), "emberd does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { process, _data: data })
    }
}

/// The figures of some answers, as a table has them.
fn row(what: &str, asked: &Asked, cpu_us: f64) -> Vec<String> {
    let ms = |part: f64| format!("{:.2}", asked.percentile(part));
    vec![
        what.to_owned(),
        asked.count().to_string(),
        asked.failed.to_string(),
        ms(0.5),
        ms(0.95),
        ms(0.99),
        format!("{cpu_us:.0}"),
    ]
}

const HEAD: [&str; 7] = ["", "requests", "failed", "p50 ms", "p95 ms", "p99 ms", "emberd's CPU µs a request"];

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut options = options.clone();
    options.postgres = options.postgres.or_else(|| std::env::var("EMBERD_TEST_POSTGRES").ok());
    options.phoenix = options.phoenix.or_else(|| std::env::var_os("EMBERD_PHOENIX").map(PathBuf::from));
    let options = &options;
    // The threads made from here on are those of the clients.
    let pid = std::process::id().to_string();
    Command::new("taskset").args(["-apc", "1", &pid]).output().context("taskset is needed")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let users: Vec<User> = (0..options.users).map(User::new).collect::<anyhow::Result<_>>()?;
    let mut rows = Vec::new();
    let mut heard = Vec::new();
    for (name, store) in stores(options) {
        let store = runtime.block_on(store.open())?;
        eprintln!("api: reads and logins on {name}");
        let emberd = Emberd::start(&store, |_| {})?;
        rows.extend(runtime.block_on(reads(options, &emberd, &users, name))?);
        rows.extend(runtime.block_on(logins(options, &emberd, &users, name))?);
        for narrow in [true, false] {
            eprintln!("api: {} sockets on {name}", options.sockets);
            heard.push(runtime.block_on(sockets::run(options, &emberd, &users, name, narrow))?);
        }
        emberd.process.stop()?;
    }
    let title = format!(
        "The API, {} requests a second by {} users (Zipf), logins {} a second, {} s each",
        options.rate, options.users, options.logins, options.seconds
    );
    table::print(&title, &HEAD, &rows);
    let title = format!("{} sockets, {} traces a second, {} s", options.sockets, options.events, options.seconds);
    table::print(&title, &sockets::HEAD, &heard);
    if let Some(venv) = &options.phoenix {
        phoenix::run(options, &runtime, venv, &users)?;
    }
    Ok(())
}

/// A database that a part runs on.
enum Store<'a> {
    Sqlite,
    Postgres(&'a str),
}

impl Store<'_> {
    /// An empty one's URL.
    async fn open(&self) -> anyhow::Result<String> {
        let Self::Postgres(server) = self else { return Ok("sqlite".to_owned()) };
        let name = format!("bench_{}", uuid::Uuid::new_v4().simple());
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(server).await?;
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut connection).await?;
        Ok(format!("{}/{name}", server.rsplit_once('/').context("odd URL")?.0))
    }
}

fn stores(options: &Options) -> Vec<(&'static str, Store<'_>)> {
    let postgres = options.postgres.as_deref().map(|url| ("PostgreSQL", Store::Postgres(url)));
    std::iter::once(("SQLite", Store::Sqlite)).chain(postgres).collect()
}

/// What a prompt's page and a list ask for.
async fn reads(options: &Options, emberd: &Emberd, users: &[User], name: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let client = Client::new(users);
    let prompts = client.prompts(100).await?;
    client.traces(OTLP, &prompts, 5_000).await?;
    let paths: Vec<String> = prompts
        .iter()
        .flat_map(|id| {
            ["traces?limit=20", "performance", "evaluations"].map(|what| format!("/api/prompts/{id}/{what}"))
        })
        .chain(["/api/prompts?limit=20".into(), "/api/evaluations".into(), "/api/phoenix/stats".into()])
        .collect();
    let ask = |nr: usize| client.get(API, paths[nr % paths.len()].clone(), client.whose(nr));
    // Plans are made and pages are read.
    client::by_the_clock(options.rate, 2.0, ask).await;
    let before = emberd.process.cpu()?;
    let asked = client::by_the_clock(options.rate, options.seconds, ask).await;
    let cpu = (emberd.process.cpu()? - before) * 1e6 / asked.count().max(1) as f64;
    Ok(vec![row(&format!("reads with a token, {name}"), &asked, cpu)])
}

/// Session tokens that become bridge tokens.
async fn logins(options: &Options, emberd: &Emberd, users: &[User], name: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let client = Client::new(users);
    let hits = std::cell::Cell::new(0_u64);
    let ask = |nr: usize| {
        let answer = client.post(API, "/api/auth/phoenix".to_owned(), client.whose(nr), json!({}));
        let hits = &hits;
        async move {
            let answer: Value = answer.await?;
            hits.set(hits.get() + answer["performance"]["cacheHits"].as_u64().unwrap_or(0).min(1));
            Ok(())
        }
    };
    let before = emberd.process.cpu()?;
    let asked = client::by_the_clock(options.logins, options.seconds, ask).await;
    let cpu = (emberd.process.cpu()? - before) * 1e6 / asked.count().max(1) as f64;
    let share = 100.0 * hits.get() as f64 / asked.count().max(1) as f64;
    Ok(vec![row(&format!("logins by token, {name} ({share:.1} % from the cache)"), &asked, cpu)])
}
