//! The only room that knows Phoenix: what it takes, what it does to spans, how it is asked what it holds, how one is started.
//!
//! - [`mend`]: a copy of a request that Phoenix can take, and understands.
//! - [`client`]: Phoenix's version, and which spans it holds.
//! - [`process`]: a Phoenix of one's own, for the demo and the tests.
//!
//! Not here: sending spans (`emberd-consumers`, over plain OTLP), the log, SQL, the proxy to Phoenix's own API.

pub mod client;
pub mod mend;
pub mod process;

pub use client::{Client, Sought};
pub use mend::{Mended, mend};
