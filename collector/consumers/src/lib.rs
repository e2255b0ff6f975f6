//! Who reads the log: the forwarder, the recorder and the archiver, each with a cursor of its own, none waiting for another.
//!
//! Promise: a consumer's cursor moves only over what it is done with, or has put into quarantine with the reason.
//!
//! - [`forwarder`]: batches to Phoenix or another OTLP endpoint. [`recorder`]: spans to rows and rollups. [`archiver`]: spans to files.
//! - [`book`]: cursor and ledger of a consumer without a database, over [`moments`]. [`quarantine`]: what cannot be delivered or
//!   recorded. [`progress`]: how far each is.
//!
//! Not here: the log (`emberd-log`), SQL (`emberd-store`), Phoenix's quirks (`emberd-phoenix`), who runs a consumer (the wiring).

pub mod archiver;
mod backoff;
pub mod book;
pub mod forwarder;
pub mod moments;
pub mod progress;
pub mod quarantine;
pub mod recorder;

pub use progress::Progress;

/// An error and its causes, as one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
