//! Plugins, seen from outside: those that misbehave, those that are shipped, and what is left when emberd is gone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod abuse;
mod crowd;
mod descriptor;
mod examples;
mod modules;
mod orphans;
mod phoenix_evals;
mod support;
