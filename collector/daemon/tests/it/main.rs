//! The binary's stories: the real emberd, over real sockets, on a real disk and real databases.
//!
//! One binary for all of them, so that they link once. What they need and where they find it:
//! `EMBERD_TEST_POSTGRES` (a superuser's URL; `make test` sets it), `EMBERD_PHOENIX` (a Python environment with Phoenix;
//! default `~/.cache/emberd/phoenix`), `EMBERD_FIXTURES` (exports of real SDKs; default `../shared/fixtures/dev` beside the
//! checkout).
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod budget;
mod client;
mod commands;
mod fixtures;
mod floors;
mod kill;
mod library;
mod phoenix;
mod process;
mod refuses_to_start;
mod stopping;
