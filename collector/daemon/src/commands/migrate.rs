//! `emberd migrate up | down --to N | status`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Where;
use crate::config::ROLLED_BACK;

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    direction: Direction,
}

#[derive(Subcommand)]
enum Direction {
    /// Apply every step that is not applied yet
    Up(Where),
    /// Undo steps, newest first
    Down {
        /// The last step to keep; 0 undoes all
        #[arg(long, value_name = "N")]
        to: i64,
        #[command(flatten)]
        place: Where,
    },
    /// List the steps and which of them are applied
    Status(Where),
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let place = match &options.direction {
        Direction::Up(place) | Direction::Down { place, .. } | Direction::Status(place) => place,
    };
    let config = match place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    std::fs::create_dir_all(&config.data_dir)?;
    let store = emberd_store::Store::connect(config.store.room(&config.data_dir)).await?;
    let changed = match &options.direction {
        Direction::Up(_) => store.migrate_up().await?.len(),
        Direction::Down { to, .. } => store.migrate_down(*to).await?.len(),
        Direction::Status(_) => 0,
    };
    for step in store.migrate_status().await? {
        let state = if step.applied { "applied" } else { "pending" };
        println!("{:04}  {state}  {}", step.version, step.name);
    }
    match &options.direction {
        Direction::Up(_) => {
            println!("{changed} applied");
            come_back(&config.data_dir)?;
        }
        Direction::Down { to, .. } => println!("{changed} taken back, down to {to}"),
        Direction::Status(_) => {}
    }
    store.close().await;
    Ok(ExitCode::SUCCESS)
}

/// What was rolled back is there again.
fn come_back(data_dir: &std::path::Path) -> anyhow::Result<()> {
    match std::fs::remove_file(data_dir.join(ROLLED_BACK)) {
        Ok(()) => println!("rolled back no more: restart emberd; it records what its log still holds"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
