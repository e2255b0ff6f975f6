//! OTLP's doors: spans come in over gRPC and HTTP, and are answered once they are durable.
//!
//! Promise: an answer of success goes out only after the log said that the spans are durable; the log gets the bytes that came,
//! unless they are JSON or some spans cannot be kept; every other answer is the one that OTLP asks for, and is called retryable
//! if and only if it is; no client, however hostile, takes more memory or time than the config gives.
//!
//! - [`doors`]: bind, run, stop. [`config`]: what they are told. `listen`, `line`: sockets and connections.
//! - `grpc`, [`http`]: the two protocols. `body`, `inflate`: bytes in, bounded. `in_flight`: the bound on all of them.
//! - `export`, `append`: what is done with a request. `refusal`, `status`: what a client hears when it is not taken.
//! - [`redact`]: what is taken out of spans before they are kept, where there are rules.
//! - [`keys`], [`senders`]: who may send. [`counters`]: what was counted since the start; [`turned_away`]: what was not
//!   accepted, ever.
//!
//! Not here: what a span means (`emberd-model`), how bytes become durable (`emberd-log`), who reads them, TLS.

mod append;
mod body;
pub mod config;
pub mod counters;
pub mod doors;
mod export;
mod grpc;
pub mod http;
mod in_flight;
mod inflate;
#[doc(hidden)]
pub mod inside;
pub mod keys;
mod line;
mod listen;
pub mod redact;
mod refusal;
mod reply;
pub mod senders;
mod status;
pub mod turned_away;

pub use config::{Config, Handed};
pub use counters::{Counters, Kept, LaneSnapshot, Snapshot, Transport};
pub use doors::{Addresses, Doors, Serving, Unclosed};
pub use http::{BadOrigin, Origins};
pub use keys::{BadKeys, Keys};
pub use refusal::Reason;
pub use senders::Senders;
pub use turned_away::TurnedAway;
