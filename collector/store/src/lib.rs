//! What emberd knows: rows of the library's tables, rollups, cursors. The only room that knows SQL.
//!
//! Promise: a [`Recording`] is applied whole or not at all, together with its cursor; repeated, split, reordered or raced, the
//! rows and the rollups come out the same. SQLite and PostgreSQL give the same answers, which one suite asks of both.
//!
//! - [`Store`]: the way in. [`Config`]: which database. [`migrate`]: its schema, up and down.
//! - [`record`]: what the recorder hands over, and what housekeeping does with it afterwards.
//! - [`library`]: what readers get: prompts, traces, metrics, summaries. [`people`]: profiles, passwords, ended tokens. [`once`]: what a key makes once.
//! - [`analytics`]: events, sessions, a day's totals. [`told`]: what listeners hear of all this, in this emberd and in others.
//! - [`retention`]: what goes when it is old. [`erase`]: what goes because somebody asks.
//! - [`recount`]: rollups held against their rows. [`examine`], [`copy`]: how a database is, and a copy of a file, from beside. [`error`]: what can go wrong.
//!
//! Not here: what a span means (`emberd-model`), the log that a cursor points into (`emberd-log`), when anything is called.

pub mod analytics;
mod apply;
pub mod config;
pub mod copy;
pub mod erase;
pub mod error;
pub mod examine;
mod fault;
pub mod jobs;
mod join;
pub mod library;
pub mod migrate;
pub mod moment;
pub mod once;
pub mod people;
mod postgres;
mod publish;
pub mod record;
pub mod recount;
pub mod retention;
mod sql;
mod sqlite;
mod store;
mod text;
pub mod told;
mod tx;
mod work;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::{Error, RecordError};
pub use moment::Moment;
pub use record::{Booking, Recorded, Recording, Writer};
pub use store::Store;
