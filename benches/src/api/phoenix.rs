//! Phoenix's own API through emberd, beside Phoenix asked directly in the same run: without emberd's cache, and with it.

use std::path::Path;
use std::time::Duration;

use emberd_phoenix::process::{Phoenix, Ports};
use tokio::runtime::Runtime;

use super::client::{self, Asked, Client, User};
use super::{Emberd, HEAD, Options, row};
use crate::server::API;
use crate::table;

/// What Phoenix itself can answer in a second, with room.
const RATE_OF_PHOENIX: f64 = 40.0;

pub(super) fn run(options: &Options, runtime: &Runtime, venv: &Path, users: &[User]) -> anyhow::Result<()> {
    let dir = crate::server::data()?;
    let phoenix = runtime.block_on(async {
        let mut phoenix = Phoenix::start(venv, dir.path(), Ports::free()?)?;
        phoenix.ready(Duration::from_secs(120)).await?;
        anyhow::Ok(phoenix)
    })?;
    // On a core with the clients: emberd's is its own.
    let pid = phoenix.pid().map(|pid| pid.to_string()).unwrap_or_default();
    std::process::Command::new("taskset").args(["-apc", "1", &pid]).output()?;
    let host = phoenix.url().trim_start_matches("http://").to_owned();
    let client = Client::new(users);
    let path = |nr: usize, prefix: &str| format!("{prefix}/v1/projects?limit={}", 1 + nr % 50);
    let ask = |host: &str, prefix: &str, rate: f64, seconds: f64| {
        let (host, prefix) = (host.to_owned(), prefix.to_owned());
        let client = &client;
        runtime.block_on(client::by_the_clock(rate, seconds, move |nr| {
            let (host, path) = (host.clone(), path(nr, &prefix));
            async move { client.get(&host, path, client.whose(nr)).await }
        }))
    };
    let mut rows = Vec::new();
    eprintln!("api: Phoenix asked directly");
    ask(&host, "", RATE_OF_PHOENIX, 3.0);
    let direct = ask(&host, "", RATE_OF_PHOENIX, options.seconds);
    rows.push(row(&format!("Phoenix directly, {RATE_OF_PHOENIX} a second"), &direct, f64::NAN));
    for (cached, rate) in [(false, RATE_OF_PHOENIX), (true, options.rate)] {
        eprintln!("api: Phoenix through emberd, {}", if cached { "with the cache" } else { "without the cache" });
        let emberd = Emberd::start("sqlite", |command| {
            command.env("EMBERD_PHOENIX_URL", phoenix.url()).env("EMBERD_PHOENIX_CACHE", cached.to_string());
        })?;
        ask(API, "/api/phoenix", RATE_OF_PHOENIX, 3.0);
        let before = emberd.process.cpu()?;
        let through: Asked = ask(API, "/api/phoenix", rate, options.seconds);
        let cpu = (emberd.process.cpu()? - before) * 1e6 / through.count().max(1) as f64;
        let with = if cached { "with" } else { "without" };
        rows.push(row(&format!("through emberd, {with} its cache, {rate} a second"), &through, cpu));
        emberd.process.stop()?;
    }
    table::print("Phoenix's own API (GET /v1/projects)", &HEAD, &rows);
    runtime.block_on(phoenix.terminate(Duration::from_secs(20)))?;
    Ok(())
}
