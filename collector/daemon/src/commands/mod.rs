//! The command line: what can be asked of emberd, and the exit code of each answer.
//!
//! Exit codes: 0 done or healthy; 1 it failed, emberd is degraded or not running, or a sum or a record is not right; 64 the command line
//! is wrong; 78 the configuration is wrong, or the place that it names cannot be used (sysexits' EX_CONFIG, which systemd is told not
//! to restart on).
//!
//! `books`: what commands read beside a daemon that may be running.

mod archive;
mod backup;
mod bars;
mod books;
mod check_config;
mod dataset;
mod doctor;
mod erase;
mod eval;
mod ledger;
mod log;
mod migrate;
mod quarantine;
mod reconcile;
mod redact;
mod remote;
mod replay;
mod restore;
mod rollback;
mod serve;
mod status;
mod user;
#[path = "where.rs"]
mod where_is;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::demo;

/// The trace collector and evaluator daemon between LLM applications and Arize Phoenix.
///
/// Applications point their OpenTelemetry exporter at it; it keeps each acknowledged span durably, forwards it to Phoenix and reads it
/// back there, and writes prompt_traces and rolled-up latency percentiles.
#[derive(Parser)]
#[command(name = "emberd", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon: take spans in, keep them, forward and record them
    Serve(serve::Options),
    /// Run emberd, a real Phoenix and a playground that sends LLM traces, to look at
    Demo(demo::Options),
    /// Tell how the running daemon is: what it accepted, kept, forwarded, recorded
    Status(status::Options),
    /// Check the configuration and the environment without starting anything
    CheckConfig(Where),
    /// Look at what emberd needs: ports, disk, clock, database, Phoenix, .., and say what to do where something is missing
    Doctor(doctor::Options),
    /// Tell what became of every span, by consumer, hour and project; --check proves it from log, books and database
    Ledger(ledger::Options),
    /// Find a span or a trace: where in the log, sent and verified when, which row, in quarantine or not
    Where(where_is::Options),
    /// List what could not be delivered or recorded, show it, try it again, or give it up
    Quarantine(quarantine::Options),
    /// Send on again what was accepted: to Phoenix, into the tables, through a rule, or to another endpoint
    Replay(Box<replay::Options>),
    /// List, check or compact what is archived
    Archive(archive::Options),
    /// Hold rollups, rows and Phoenix against what they were made of; --fix heals what differs
    Reconcile(reconcile::Options),
    /// Take what is known of a user, a session or a trace out of tables, archive, quarantine and Phoenix, with a receipt
    Erase(erase::Options),
    /// Show what the configuration's [[redact]] rules make of an export, and how often each was needed
    Redact(redact::Options),
    /// Look at the log's segments, or check every byte of them
    Log(log::Options),
    /// Run evaluators over a dataset or past traces, watch them, and see why a trace was scored or not
    Eval(eval::Options),
    /// Import, export and list datasets, as files or to and from Phoenix
    Dataset(dataset::Options),
    /// List who there is, make a profile, change its role, set a password for the login at /api/auth/phoenix
    User(user::Options),
    /// Print the REST API's OpenAPI document
    Openapi,
    /// Bring the database's tables up, down, or tell how they stand
    Migrate(migrate::Options),
    /// Copy the data directory while emberd runs, so that nothing acknowledged before is missing and nothing is counted twice
    Backup(backup::Options),
    /// Make a data directory from a backup, after checking every byte of it
    Restore(restore::Options),
    /// Go back to before emberd: flags off, tables taken back, caches cleared, a webhook told; spans are kept and forwarded as ever
    Rollback(rollback::Options),
    /// Read one Parquet file from standard input, in a process that may die of it
    #[command(name = READ_PARQUET, hide = true)]
    ReadParquet,
}

/// The command that emberd gives itself for other people's Parquet.
pub(crate) const READ_PARQUET: &str = "read-parquet";

/// Where the configuration and the data are.
#[derive(Args, Clone)]
pub(crate) struct Where {
    /// The configuration; without one every key has its default
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept: log, database, archive, quarantine [default: ./emberd-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// The command line asks for what cannot be.
const EX_USAGE: u8 = 64;
/// The configuration is wrong; all that is wrong with it has been said.
const EX_CONFIG: u8 = 78;

impl Where {
    /// Reads file and environment; on any mistake all mistakes are printed.
    pub(crate) fn load(&self) -> Result<Config, ExitCode> {
        Config::load(self.config.as_deref(), self.data_dir.clone()).map_err(|mistakes| {
            eprintln!("{mistakes}");
            ExitCode::from(EX_CONFIG)
        })
    }
}

impl Cli {
    /// What is done in a bare process, before there is a runtime with threads of its own: its exit code.
    pub(crate) fn alone(&self) -> Option<ExitCode> {
        match self.command {
            Command::ReadParquet => Some(read_parquet()),
            _ => None,
        }
    }
}

/// What `GET /openapi.json` answers, as the API's tests keep it.
const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

fn openapi() -> ExitCode {
    print!("{OPENAPI}");
    ExitCode::SUCCESS
}

fn read_parquet() -> ExitCode {
    ExitCode::from(emberd_evaluators_datasets::apart::child::run())
}

/// Does what the command line asks.
pub(crate) async fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Serve(options) => serve::run(&options).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Status(options) => status::run(&options).await,
        Command::CheckConfig(place) => check_config::run(&place),
        Command::Doctor(options) => doctor::run(&options).await,
        Command::Ledger(options) => ledger::run(&options).await,
        Command::Where(options) => where_is::run(&options).await,
        Command::Quarantine(options) => quarantine::run(&options),
        Command::Replay(options) => replay::run(&options).await,
        Command::Archive(options) => archive::run(&options).await,
        Command::Reconcile(options) => reconcile::run(&options).await,
        Command::Erase(options) => erase::run(&options).await,
        Command::Redact(options) => redact::run(&options),
        Command::Log(options) => log::run(&options),
        Command::Eval(options) => eval::run(&options).await,
        Command::Dataset(options) => dataset::run(&options).await,
        Command::Openapi => Ok(openapi()),
        Command::User(options) => user::run(&options).await,
        Command::Migrate(options) => migrate::run(&options).await,
        Command::Backup(options) => backup::run(&options).await,
        Command::Restore(options) => restore::run(&options),
        Command::Rollback(options) => rollback::run(&options).await,
        Command::ReadParquet => Ok(read_parquet()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("emberd: {error:#}");
        ExitCode::FAILURE
    })
}
