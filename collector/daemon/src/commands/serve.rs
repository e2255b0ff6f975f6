//! `emberd serve`: the daemon, until a signal ends it.

use std::process::ExitCode;

use anyhow::{Context, bail};
use emberd_log::OpenError;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Where;
use crate::wiring::Roles;
use crate::{logging, systemd, wiring, world::World};

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// What this process does; all of it by default. Without `consume` spans are kept, and neither forwarded nor recorded. `intake`
    /// and `api` cannot be left out yet: the log is on this machine's disk and belongs to one process
    #[arg(long, value_name = "ROLES", value_delimiter = ',', default_value = "intake,consume,evaluate,api")]
    role: Vec<Role>,
}

/// A part of emberd.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Role {
    Intake,
    Consume,
    Evaluate,
    Api,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut config = match options.place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    if !options.role.contains(&Role::Intake) || !options.role.contains(&Role::Api) {
        eprintln!(
            "--role: intake and api cannot be left out: the log is on this machine's disk and belongs to one process"
        );
        return Ok(ExitCode::from(super::EX_USAGE));
    }
    if let Err(wrong) = logging::start() {
        eprintln!("{wrong}");
        return Ok(ExitCode::from(super::EX_CONFIG));
    }
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let world = match systemd::meet(&mut config) {
        Ok((systemd, handed)) => World::supervised(systemd, handed),
        Err(wrong) => {
            eprintln!("{wrong}");
            return Ok(ExitCode::from(super::EX_CONFIG));
        }
    };
    let systemd = world.systemd.clone();
    let remembered = config.remembered(&options.place);
    let daemon = {
        let has = |role| options.role.contains(&role);
        let roles = Roles { consume: has(Role::Consume), evaluate: has(Role::Evaluate) };
        match wiring::assemble(config, world, roles).await {
            Ok(daemon) => daemon,
            Err(error) if wants_an_operator(&error) => {
                eprintln!("emberd: {error:#}");
                return Ok(ExitCode::from(super::EX_CONFIG));
            }
            Err(error) => return Err(error),
        }
    };
    let mut reload = remembered(daemon.controls());
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(daemon.run(stop.clone()));
    loop {
        let name = tokio::select! {
            done = &mut running => return done.map(|()| ExitCode::SUCCESS),
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hangup.recv() => {
                systemd.reloading();
                reload.run();
                systemd.ready();
                continue;
            }
        };
        if stop.is_cancelled() {
            // What was acknowledged is in the log: ending here loses nothing, the next start goes on from the cursors.
            bail!("{name} again: ending now, without draining");
        }
        tracing::info!("{name}: stopping in the order that data flows");
        stop.cancel();
    }
}

/// Whether the place where emberd was told to run is the reason that it cannot: starting again does not help before someone has
/// changed something. A disk that is full or fails may be better in a minute.
fn wants_an_operator(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind as Io;
    error.chain().any(|cause| {
        if let Some(OpenError::Locked { .. } | OpenError::FutureVersion { .. } | OpenError::BudgetTooSmall { .. }) =
            cause.downcast_ref()
        {
            return true;
        }
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                Io::PermissionDenied
                    | Io::ReadOnlyFilesystem
                    | Io::NotFound
                    | Io::NotADirectory
                    | Io::AlreadyExists
                    | Io::AddrInUse
                    | Io::AddrNotAvailable
            )
        })
    })
}
