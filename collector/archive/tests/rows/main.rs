//! The archive's files against the log: each span once, and equal to what protobuf's decoding says of it.
//!
//! Guarantees: exports of real SDKs and requests that no encoder writes come back from their files span for span, in the log's order, with
//! resource, scope, schema urls, key and time of receipt; merged, and with some rows erased, the others still do; damaged files are refused.

#![allow(clippy::unwrap_used, reason = "what cannot be read fails its test")]

#[allow(dead_code, reason = "of the choices, these tests want some")]
#[path = "../../../model/tests/otlp/choices.rs"]
mod choices;
mod columns;
mod damage;
mod round;
mod spans;
#[path = "../../../model/tests/otlp/wild.rs"]
mod wild;
