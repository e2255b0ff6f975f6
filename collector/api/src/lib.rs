//! The HTTP API: health, metrics, status, and what a prompt's page shows.
//!
//! Promise: every route says which permission it asks for, or it is not a route ([`routes`]); every request passes one gate
//! ([`gate`]) in the order host, session, origin, permission; every answer but `/metrics` is JSON, every refusal `{error, details?}`.
//! On the wire: requests in camelCase, answers are the table's rows in snake_case, lists `{data, next_cursor}`, times RFC 3339 UTC.
//! Not here: SQL (`emberd-store`); the log and the consumers, of which only a [`View`] is handed in.
//! Kept by: `tests`, which ask each route over real HTTP, against SQLite and PostgreSQL.
//!
//! - [`server`] holds the connections ([`timely`]: for as long as they are read); [`ask`] reads what a request says, [`refusal`] is what it hears when that is wrong;
//! - [`sessions`]: whom a token names; [`auth`]: logging in and out; [`permission`]: who may what; [`limits`]: how often; [`flags`]: for whom there is what;
//! - [`contract`]: what each route promises, and the OpenAPI document; [`proxy`]: Phoenix's own API; [`graph`]: GraphQL; [`live`]: Socket.IO; [`neighbours`]: other emberds on the same database; [`meter`]: how long answers took; [`usage`]: who asked what, for the table;
//!   [`analytics`]: the application's events, sessions and days; [`batches`]: how both are written;
//! - [`cursors`]: what lists go on with; [`hops`]: from where a request comes; [`summary`]: how it did, for the log; [`operations`], [`prompts`], [`evaluations`], [`datasets`],
//!   [`templates`]: the answers.

mod analytics;
mod ask;
mod auth;
mod batches;
mod contract;
mod cursors;
mod datasets;
mod evaluations;
mod flags;
mod gate;
mod graph;
mod hops;
mod limits;
mod live;
mod meter;
pub mod neighbours;
mod operations;
mod permission;
mod prompts;
pub mod proxy;
mod refusal;
mod routes;
mod rules;
mod server;
mod sessions;
mod summary;
mod templates;
mod timely;
mod usage;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use emberd_evaluators_jobs::Handle;
use emberd_model::Clock;
use emberd_store::Store;

pub use flags::{Flag, Flags, Part};
pub use hops::Network;
pub use limits::Rate;
pub use routes::Route;
pub use server::{Api, Tuner};
pub use sessions::{Identity, PROFILES};

/// All caches, by the names that whoever changes what they keep calls them.
pub const CACHES: [&str; 2] = [PROFILES, proxy::ANSWERS];

/// Where the API listens, and to whom.
#[derive(Debug)]
pub struct Config {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A socket that listens there already.
    pub handed: Option<std::net::TcpListener>,
    /// Who callers are taken for.
    pub callers: Callers,
    /// How often each user may ask.
    pub rate: Rate,
    /// Which parts are there, and for whom.
    pub flags: Flags,
    /// The way to Phoenix's own API; none: there is none.
    pub phoenix: Option<proxy::Config>,
    /// Origins of other sites' pages that may call it from a browser, as `https://app.example`.
    pub cors: Vec<String>,
    /// Proxies that say truly where a request comes from.
    pub trusted: Vec<Network>,
    /// Where files that callers send are read.
    pub reader: emberd_evaluators_datasets::Reader,
    /// Whether the log has a summary every five minutes.
    pub summary: bool,
    /// What was read before.
    pub caches: Caching,
}

/// What of a [`Config`] can change while the API answers.
#[derive(Debug)]
pub struct Tuning {
    /// As [`Config::flags`].
    pub flags: Flags,
    /// As [`Config::cors`].
    pub cors: Vec<String>,
    /// As [`Config::trusted`].
    pub trusted: Vec<Network>,
    /// As [`Config::rate`].
    pub rate: Rate,
    /// How tokens become users; none: as before.
    pub identity: Option<Identity>,
}

/// What is kept of what was read, and how much of it.
#[derive(Clone, Debug)]
pub struct Caching {
    /// The caches of this process, and the Redis behind them.
    pub caches: Arc<emberd_cache::Caches>,
    /// Profiles in memory; 0: what a login reads is read each time.
    pub users: usize,
    /// Phoenix's answers in memory.
    pub answers: usize,
}

/// Who callers are taken for.
#[derive(Debug)]
pub enum Callers {
    /// Everyone is the local administrator: only for a port that no other machine reaches.
    LocalAdministrator,
    /// Everyone must show a token.
    Tokens(Box<Identity>),
}

/// What the API may show of the rooms that it does not know.
pub trait View: Send + Sync + 'static {
    /// What `GET /api/status` answers: an object with `ledger`, `log` and what else there is to tell.
    fn status(&self) -> serde_json::Value;

    /// What `GET /api/ledger` answers: the sums, and the books they come from, by hour and project.
    fn ledger(&self) -> serde_json::Value;

    /// Whether spans are taken in and worked off.
    fn ready(&self) -> Readiness;

    /// Appends the other rooms' metrics in Prometheus' text format.
    fn metrics(&self, out: &mut String);
}

/// Whether emberd is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why it is not; none: it is.
    pub reasons: Vec<String>,
    /// How each plugin is, by its name, in a word. One that is down fails its own evaluators, and nothing else.
    pub plugins: BTreeMap<String, &'static str>,
}

/// What every handler may use.
struct Shared {
    store: Store,
    view: Arc<dyn View>,
    clock: Arc<dyn Clock>,
    evaluations: Handle,
    meter: meter::Meter,
    gate: gate::Gate,
    reader: emberd_evaluators_datasets::Reader,
    /// Files that may be read at once.
    reading: Arc<tokio::sync::Semaphore>,
    logins: auth::Logins,
    usage: usage::Usage,
    events: analytics::Events,
    /// What cursors are signed with, once it was read.
    cursor_key: tokio::sync::OnceCell<ring::hmac::Key>,
    proxy: Option<Arc<proxy::Proxy>>,
    caches: Arc<emberd_cache::Caches>,
    graph: emberd_graph::Graph,
    live: live::Live,
    neighbours: neighbours::Neighbours,
    summary: bool,
    /// What `GET /openapi.json` answers; set once the routes are known.
    document: OnceLock<bytes::Bytes>,
}
