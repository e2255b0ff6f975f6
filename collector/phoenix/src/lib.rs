//! The only room that knows Phoenix: what it takes, what it does to spans, how it is asked what it holds, how one is started.
//!
//! - [`mend`]: a copy of a request that Phoenix can take, and understands.
//! - [`client`]: Phoenix's version, and which spans it holds.
//! - [`datasets`], [`experiments`], [`annotations`], [`configs`]: evaluation's results, written so that a repetition changes nothing.
//! - [`examine`]: how it is, and what a key may do there.
//! - [`erase`]: taking traces and sessions out for good.
//! - [`own`]: which of Phoenix's datasets is emberd's.
//! - [`rest`]: what these calls answer with when they fail; [`text`]: what Phoenix's database cannot hold.
//! - [`process`]: a Phoenix of one's own, for the demo and the tests.
//!
//! Not here: sending spans (`emberd-consumers`, over plain OTLP), the log, SQL, the proxy to Phoenix's own API.

pub mod annotations;
pub mod client;
pub mod configs;
pub mod datasets;
pub mod erase;
pub mod examine;
pub mod experiments;
pub mod mend;
pub mod own;
pub mod process;
pub mod rest;
pub mod text;

pub use client::{Client, Sought};
pub use mend::{Mended, mend};
