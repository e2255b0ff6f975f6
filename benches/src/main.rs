//! What emberd costs, each figure as a ratio to something measured in the same run.
//!
//!     emberd-benches walk | fold | archive | questions | recorder | jobs | intake | growth | endure | abuse | api | caches | retention | all
//!
//! `intake`, `growth`, `endure` and `abuse` drive the real binary with an outside load and compare it with a bare server that discards (`rig/`: the
//! programs `otlpload`, `otlpsink` and `floor`; `EMBERD_RIG` names the folder they are built in). The others run in this process, on one thread.
//! The figures and the machine they were measured on: `benches/README.md`.

mod abuse;
mod api;
mod archive;
mod caches;
mod endure;
mod fold;
mod growth;
mod intake;
mod jobs;
mod load;
mod meter;
mod payload;
mod peers;
mod questions;
mod recorder;
mod retention;
mod server;
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
    /// The archive's files from batches and back, beside prost's decode and gzip
    Archive,
    /// The questions of docs/archive.md, asked by DuckDB of an archive of ten million spans
    Questions(questions::Options),
    /// The recorder's transaction on SQLite and PostgreSQL, beside plain inserts of the same rows
    Recorder(recorder::Options),
    /// Evaluation jobs of built-ins on SQLite and PostgreSQL, beside the bare functions and plain inserts of the same results
    Jobs(jobs::Options),
    /// The real binary under load, beside a bare server that discards, and peers where EMBERD_PEERS names a folder of them
    Intake(intake::Options),
    /// How the cost grows: connections, spans a request, bytes a span, size of the log, prompts, pace
    Growth(growth::Options),
    /// Latency at half of the peak, memory at full rate and with a backlog, restart
    Endure(endure::Options),
    /// Latency and memory beside plugins that misbehave
    Abuse(abuse::Options),
    /// The API: reads and logins with tokens, Phoenix through emberd, sockets
    Api(api::Options),
    /// Authenticated reads while Redis is up, stalled, killed and back; how many profiles a cache has for a thousand users
    Caches(caches::Options),
    /// Deleting what is old of millions of rows on PostgreSQL while spans come in
    Retention(retention::Options),
    /// All of them
    All(intake::Options),
    /// The load generator alone
    #[command(hide = true)]
    Load(load::Load),
}

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bench = Args::parse().bench.unwrap_or(Bench::All(intake::Options::default()));
    if let Bench::Load(load) = &bench {
        return load::run(load);
    }
    println!("{}\n", table::machine());
    match bench {
        Bench::Walk => walk::run(),
        Bench::Fold => fold::run(),
        Bench::Archive => archive::run()?,
        Bench::Questions(options) => questions::run(&options)?,
        Bench::Recorder(options) => recorder::run(&options)?,
        Bench::Jobs(options) => jobs::run(&options)?,
        Bench::Intake(options) => intake::run(&options)?,
        Bench::Growth(options) => growth::run(&options)?,
        Bench::Endure(options) => endure::run(&options)?,
        Bench::Abuse(options) => abuse::run(&options)?,
        Bench::Api(options) => api::run(&options)?,
        Bench::Caches(options) => caches::run(&options)?,
        Bench::Retention(options) => retention::run(&options)?,
        Bench::All(options) => {
            walk::run();
            fold::run();
            archive::run()?;
            recorder::run(&recorder::Options::default())?;
            jobs::run(&jobs::Options::default())?;
            intake::run(&options)?;
            growth::run(&growth::Options::default())?;
            endure::run(&endure::Options::default())?;
            abuse::run(&abuse::Options::default())?;
            api::run(&api::Options::default())?;
            caches::run(&caches::Options::default())?;
        }
        Bench::Load(_) => {}
    }
    Ok(())
}
