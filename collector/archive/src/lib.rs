//! The archive: every accepted span once, in Parquet files that others read as they lie.
//!
//! - [`rows`]: batches to columns to the bytes of files, one for each day; and back. [`part`]: such a file before it has a place.
//! - [`keeping`]: where files lie, which of them count, and what is done with them later.
//!
//! Not here: the log and its reader (`emberd-log`), who runs this (`emberd-consumers`), what a span means (`emberd-model`).

pub mod keeping;
pub mod part;
pub mod rows;

pub use part::{Day, Part};
