//! OTLP as it comes: the walk, the views and the JSON decoder against prost, against real exports and against bad
//! input.
//!
//! One binary, so that there is one link.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod choices;
mod damage;
mod fixtures;
mod json_fixtures;
mod json_round_trip;
mod json_table;
mod json_writer;
mod message;
mod views;
mod wild;
mod wire_differential;
mod wire_fixtures;
mod wire_table;
