//! What emberd costs, each figure as a ratio to something measured in the same run.
//!
//!     emberd-benches walk | fold | recorder | intake | all
//!
//! `intake` drives the real binary with an outside load generator and compares it with a bare server that discards (`rig/`: the
//! programs `otlpload`, `otlpsink` and `floor`; `EMBERD_RIG` names the folder they are built in). The others run in this process, on one thread.
//! The first figures and the machine they were measured on: `benches/README.md`.

mod fold;
mod intake;
mod payload;
mod recorder;
mod table;
mod walk;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures emberd's rooms, as ratios to a floor of the same run.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    bench: Option<Bench>,
}

#[derive(Subcommand, Clone)]
enum Bench {
    /// The walk over a request, beside prost's decode and a plain copy
    Walk,
    /// The fold of spans into trace states and rows, beside prost's decode
    Fold,
    /// The recorder's transaction on SQLite and PostgreSQL, beside bare inserts of the same rows
    Recorder,
    /// The real binary under load, beside a bare server that discards
    Intake(intake::Options),
    /// All of them
    All(intake::Options),
}

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bench = Args::parse().bench.unwrap_or(Bench::All(intake::Options::default()));
    println!("{}\n", table::machine());
    match bench {
        Bench::Walk => walk::run(),
        Bench::Fold => fold::run(),
        Bench::Recorder => recorder::run()?,
        Bench::Intake(options) => intake::run(&options)?,
        Bench::All(options) => {
            walk::run();
            fold::run();
            recorder::run()?;
            intake::run(&options)?;
        }
    }
    Ok(())
}
