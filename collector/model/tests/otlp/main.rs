//! OTLP as it comes: the walk, the views and the JSON decoder against prost, against real exports and against bad input.
//!
//! One binary, so that there is one link.

mod choices;
mod fixtures;
mod message;
mod views;
mod wild;
mod wire_differential;
mod wire_fixtures;
mod wire_table;
