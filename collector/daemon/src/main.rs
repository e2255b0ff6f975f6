//! emberd: the binary. Reads the command line, assembles the rooms, runs them, stops them in the order that data flows.
//!
//! - [`wiring`]: the one file in which a span's whole way can be read.
//! - [`config`]: the only place that reads files and environment.
//! - [`commands`]: what can be asked on the command line. [`demo`]: emberd with a real Phoenix and a playground.
//! - [`reload`]: what SIGHUP changes; [`switches`]: what can be switched off. [`doctor`]: whether what emberd needs is there.
//! - [`settings`]: the configuration as the rooms take it. [`rooms`]: the running tasks. [`run_file`]: where they listen.
//! - [`view`]: what the API may show of the other rooms; [`told`]: the ledger in its words; [`judging`]: plugins and evaluations.
//! - [`systemd`]: what systemd is told, and the sockets that it hands over. [`world`]: the real clock and disk.

mod commands;
mod config;
mod demo;
mod doctor;
mod judging;
mod logging;
mod reconcile;
mod reload;
mod replay;
mod retention;
mod rooms;
mod run_file;
mod settings;
mod switches;
mod systemd;
mod told;
mod view;
mod wiring;
mod world;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One crypto provider for every TLS in the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = commands::Cli::parse();
    if let Some(code) = cli.alone() {
        return code;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli)),
        Err(error) => {
            eprintln!("emberd: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
