//! What the doors are told: where to listen, what to take, how long to wait.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use emberd_model::wire::Limits;

use crate::body::Patience;
use crate::counters::Kept;
use crate::http::Origins;
use crate::keys::Keys;
use crate::redact::Redact;

/// The doors' settings. [`Config::new`] gives the defaults; the daemon's config checks that they make sense together.
#[derive(Debug)]
pub struct Config {
    /// Where OTLP/gRPC listens; port 0 takes a free one.
    pub grpc: SocketAddr,
    /// Where OTLP/HTTP listens; port 0 takes a free one.
    pub http: SocketAddr,
    /// Sockets that listen already, instead of these addresses.
    pub handed: Handed,
    /// The largest request, before and after decompression. At most 4 GiB.
    pub max_request_bytes: usize,
    /// What all requests inside may hold together, from the first byte read to the answer. A request that is larger than this is
    /// taken alone.
    pub in_flight_bytes: usize,
    /// How long a request waits for room among [`Config::in_flight_bytes`] before it is refused.
    pub in_flight_wait: Duration,
    /// Open connections, both doors together. Those beyond wait in the listen queue.
    pub connections_max: usize,
    /// How deep values may nest, how many spans a request may hold.
    pub limits: Limits,
    /// Browser pages that may send: none by default.
    pub cors_origins: Origins,
    /// Who may send; none: everyone who can reach the port.
    pub keys: Option<Keys>,
    /// A connection says what it wants within this time, and is closed when it has been idle for it (HTTP/1).
    pub header_timeout: Duration,
    /// The pause allowed between two pieces of a request's body.
    pub body_idle_timeout: Duration,
    /// The least of a body that must come in each such time, in bytes for each second of it.
    pub body_rate_min: usize,
    /// From a request's head to its answer. A client's `grpc-timeout` can only shorten it.
    pub request_timeout: Duration,
    /// Connections are asked to come again after this time, so that a balancer in front can spread them.
    pub connection_age: Duration,
    /// How long requests inside may take to end once the doors were told to stop.
    pub close_timeout: Duration,
    /// What is taken out of spans before they are kept; none: nothing.
    pub redact: Option<Arc<Redact>>,
    /// Where spans that are turned away are counted for good; none: only since the start.
    pub kept: Option<Kept>,
}

/// Doors that somebody else has bound, and keeps open between two lives of this process.
#[derive(Debug, Default)]
pub struct Handed {
    /// OTLP/gRPC.
    pub grpc: Option<TcpListener>,
    /// OTLP/HTTP.
    pub http: Option<TcpListener>,
}

impl Config {
    /// The defaults, listening on these addresses.
    #[must_use]
    pub fn new(grpc: SocketAddr, http: SocketAddr) -> Self {
        Self {
            grpc,
            http,
            handed: Handed::default(),
            max_request_bytes: 64 << 20,
            in_flight_bytes: 256 << 20,
            in_flight_wait: Duration::from_millis(500),
            connections_max: 4096,
            limits: Limits::default(),
            cors_origins: Origins::default(),
            keys: None,
            header_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(15),
            body_rate_min: 1024,
            request_timeout: Duration::from_secs(60),
            connection_age: Duration::from_secs(3600),
            close_timeout: Duration::from_secs(10),
            redact: None,
            kept: None,
        }
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience { idle: self.body_idle_timeout, bytes_per_second_min: self.body_rate_min }
    }
}
