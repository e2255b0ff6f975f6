//! `emberd demo`: emberd, a real Phoenix and a playground, from nothing, to look at.
//!
//! Promise: everything it starts ends with it; everything it writes is below its data directory.
//! Shape:   DIR/phoenix-data (Phoenix's database), DIR/phoenix (its Python environment, unless one is given), DIR/playground.py.
//! Not here: any other way through emberd than `serve` has: the demo assembles the same daemon.

mod playground;
mod watch;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use emberd_phoenix::process::{self, Phoenix, Ports};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::commands::Where;
use crate::{logging, wiring, world::World};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// A Python environment that has Phoenix, or shall get it [default: DIR/phoenix]
    #[arg(long, value_name = "DIR")]
    phoenix_venv: Option<PathBuf>,
    /// Tries a second that the playground makes
    #[arg(long, default_value_t = 2.0)]
    rate: f64,
    /// Stop after this many seconds instead of on Ctrl-C; exit 1 if the first trace had not arrived everywhere by then
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut config = match options.place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    logging::start_quiet(&config.data_dir)?;
    let data_dir = config.data_dir.clone();
    let venv = options.phoenix_venv.clone().unwrap_or_else(|| data_dir.join("phoenix"));
    println!("emberd demo: everything is kept in {}", data_dir.display());
    if !process::installed(&venv) {
        println!("installing Phoenix {} into {} (about a minute, once)", process::VERSION, venv.display());
        process::install(&venv).await?;
    }

    let ports = Ports::preferred(config.phoenix.port().unwrap_or(6006), 14317)?;
    let mut phoenix = Phoenix::start(&venv, &data_dir.join("phoenix-data"), ports)?;
    config.point_at_phoenix(&phoenix.url(), &phoenix.otlp())?;
    config.free_busy_ports();
    let daemon = wiring::assemble(config, World::real(), wiring::Roles { consume: true, evaluate: true })
        .await
        .context("cannot start emberd")?;
    let addresses = daemon.addresses();
    let mut playground = playground::Playground::start(&venv, &data_dir, &addresses, options.rate)?;
    let began = Instant::now();
    print_addresses(&addresses, &phoenix, &data_dir);

    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let patience = options.seconds.map_or(Duration::MAX, Duration::from_secs);
    let mut watch = watch::Watch::new(&addresses, phoenix.url(), began, std::io::stdout().is_terminal());
    let mut running = std::pin::pin!(daemon.run(stop.clone()));
    let ended = {
        let look = watch.go_on(&mut phoenix, &mut playground);
        tokio::select! {
            done = &mut running => done.map(|()| "emberd ended"),
            done = look => done.map(|()| "the playground ended"),
            _ = interrupt.recv() => Ok("stopping"),
            _ = terminate.recv() => Ok("stopping"),
            () = tokio::time::sleep(patience) => Ok("time is over"),
        }
    };
    println!("\n{}", ended?);
    playground.stop().await;
    stop.cancel();
    let _ = running.await;
    let whole = watch.arrived_everywhere();
    phoenix.terminate(Duration::from_secs(10)).await?;
    Ok(if options.seconds.is_none() || whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_addresses(addresses: &wiring::Addresses, phoenix: &Phoenix, data_dir: &std::path::Path) {
    println!();
    println!("  Phoenix               {}", phoenix.url());
    println!("  emberd's status       http://{}/api/status", addresses.api);
    println!("  the playground        http://{}/api/prompts", addresses.api);
    println!("  metrics               http://{}/metrics", addresses.api);
    println!("  every span, by SQL    {}/archive/**/*.parquet, after a minute (docs/archive.md)", data_dir.display());
    println!(
        "  send your own spans   OTEL_EXPORTER_OTLP_ENDPOINT=http://{} (gRPC), http://{} (HTTP)",
        addresses.grpc, addresses.http
    );
    println!();
}
