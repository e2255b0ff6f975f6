//! The binary's stories: the real emberd, over real sockets, on a real disk and real databases.
//!
//! One binary for all of them, so that they link once. What they need and where they find it:
//! `EMBERD_TEST_POSTGRES` (a superuser's URL; `make test` sets it), `EMBERD_PHOENIX` (a Python environment with Phoenix;
//! default `~/.cache/emberd/phoenix`), Node with jsonwebtoken, an OpenAPI linter and TypeScript in `EMBERD_CACHE`'s `node` (`app`, `contract`), `EMBERD_FIXTURES` (exports of real SDKs; default `../shared/fixtures/dev` beside the
//! checkout). `EMBERD_TEST_EVAL_EXAMPLES`: how many examples the whole evaluation is of (`experiment`), if not the usual few.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod abuse;
mod app;
mod archive;
mod backup;
mod books;
mod budget;
mod canary;
mod choice;
mod client;
mod commands;
mod contract;
mod cursors;
mod doctor;
mod endpoint;
mod erasing;
mod evaluation;
mod experiment;
mod fixtures;
mod floors;
mod hostile;
mod incidents;
mod kill;
mod ledger;
mod library;
mod made;
mod monitoring;
mod outage;
mod packaging;
mod phoenix;
mod postgres;
mod process;
mod quarantine;
mod reconcile;
mod redis;
mod refuses_to_start;
mod reload;
mod replay;
mod retention;
mod rollback;
mod sink;
mod slow_socket;
mod stopping;
mod systemd;
mod truth;
mod where_is;

/// A figure of docs/reliability.md, in one write and past the test runner's capture: `.ci/figures` collects these lines.
fn figure(id: &str, values: &[(&str, serde_json::Value)]) {
    use std::io::Write as _;
    let values: Vec<String> = values.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
    let line = format!("figure {id} {{{}}}\n", values.join(", "));
    let _ = std::io::stderr().write_all(line.as_bytes());
}
