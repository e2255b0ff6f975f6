//! `emberd doctor`: whether all that emberd needs is there, and what to do where it is not.
//!
//! Exit codes: 0 all is well, or nothing worse than a warning; 1 something failed; 78 the configuration is wrong.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::Where;
use super::bars::bar;
use crate::doctor::{self, Finding, State};
use crate::world::World;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let config = match options.place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    let spinner = spinner();
    let mut findings = doctor::examine(config, World::real().clock, |done, all, waiting| {
        spinner.set_message(format!("{done} of {all} checks; waiting for {}", waiting.join(", ")));
    })
    .await;
    spinner.finish_and_clear();
    findings.splice(0..0, warnings.into_iter().map(Finding::of_configuration));
    let worst = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok);
    if options.json {
        println!("{:#}", json!({ "state": worst, "checks": findings }));
    } else {
        print!("{}", table(&findings));
    }
    Ok(if worst == State::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn spinner() -> ProgressBar {
    let bar = bar("{spinner} {msg}", "", false);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// One line each, columns under each other; below it what to do.
fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let mut page = String::new();
    for Finding { check, state, found, advice } in findings {
        let word = match state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "FAILED",
        };
        page.push_str(&format!("{word:<8} {check:<width$}  {found}\n"));
        if let Some(advice) = advice {
            page.push_str(&format!("{:<8} {:<width$}  -> {advice}\n", "", ""));
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    page.push_str(&format!(
        "{} well, {} warnings, {} failed\n",
        count(State::Ok),
        count(State::Warning),
        count(State::Failed)
    ));
    page
}
