//! What the doors count: atomics, read by the status page and by `/metrics`.
//!
//! Promise: once nothing is inside, `received = accepted + rejected + refused` spans, whatever clients did; a snapshot taken
//! at any time never shows less received than the sum of the others.
//! Not here: the ledger, which survives a restart: accepted spans are the log's head, and what is turned away is in `turned_away`.
//! These begin at zero with the process.
//! Kept by: `tests/it/books.rs`.

mod text;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use emberd_model::Clock;
use emberd_model::ledger::Hour;

use crate::in_flight::InFlight;
use crate::refusal::Reason;
use crate::turned_away::{TurnedAway, What};

/// How a request came. One whose media type is unknown counts as [`Transport::HttpJson`], the form in which it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with a protobuf body.
    HttpProtobuf,
    /// OTLP/HTTP with a JSON body.
    HttpJson,
}

const TRANSPORTS: usize = 3;
const REASONS: usize = Reason::ALL.len();

impl Transport {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; TRANSPORTS] = [Self::Grpc, Self::HttpProtobuf, Self::HttpJson];

    /// The label in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http_protobuf",
            Self::HttpJson => "http_json",
        }
    }
}

/// Upper bounds of the answer times' buckets.
const ANSWER_MILLIS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

#[derive(Debug, Default)]
struct Lane {
    requests: AtomicU64,
    body_bytes: AtomicU64,
    answered: AtomicU64,
    partial: AtomicU64,
    refused: [AtomicU64; REASONS],
    received_spans: AtomicU64,
    accepted_spans: AtomicU64,
    rejected_spans: AtomicU64,
    refused_spans: [AtomicU64; REASONS],
    /// One more than bounds: what took longer than the last.
    answer_times: [AtomicU64; ANSWER_MILLIS.len() + 1],
    answer_micros: AtomicU64,
}

/// The doors' counters.
#[derive(Debug)]
pub struct Counters {
    lanes: [Lane; TRANSPORTS],
    inflated_bytes: AtomicU64,
    stray_spans: AtomicU64,
    accept_errors: AtomicU64,
    connections: AtomicU64,
    connections_open: AtomicU64,
    in_flight: Arc<InFlight>,
    kept: Option<Kept>,
}

/// Where what is turned away is counted for good.
#[derive(Clone)]
pub struct Kept {
    /// The counts.
    pub counts: Arc<TurnedAway>,
    /// Which hour it is.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts.fmt(f)
    }
}

impl Kept {
    fn add(&self, what: What, transport: Transport, reason: &str, spans: u32) {
        self.counts.add(Hour::of(self.clock.now()), what, transport, reason, spans.into());
    }
}

/// What one transport has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LaneSnapshot {
    /// Requests whose head came.
    pub requests: u64,
    /// Bytes of their bodies, as they came: before inflating.
    pub body_bytes: u64,
    /// Requests answered with success, partial success included.
    pub answered: u64,
    /// Requests answered with partial success.
    pub partial: u64,
    /// Requests refused, in the order of [`Reason::ALL`].
    pub refused: [u64; REASONS],
    /// Spans of all requests that could be walked.
    pub received_spans: u64,
    /// Spans that are durable.
    pub accepted_spans: u64,
    /// Spans that can never be kept, told to the client as a partial success.
    pub rejected_spans: u64,
    /// Well-formed spans that were refused with their request, in the order of [`Reason::ALL`].
    pub refused_spans: [u64; REASONS],
}

/// All counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// By transport, in the order of [`Transport::ALL`].
    pub lanes: [LaneSnapshot; TRANSPORTS],
    /// Bytes that came out of decompression.
    pub inflated_bytes: u64,
    /// Spans whose client had left, or run out of time, before they were durable; also counted by their outcome.
    pub stray_spans: u64,
    /// Connections that could not be accepted, for want of file descriptors or memory.
    pub accept_errors: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Of these, still open.
    pub connections_open: u64,
    /// Bytes that the requests inside hold.
    pub in_flight_bytes: u64,
    /// Bytes that they may hold.
    pub in_flight_max_bytes: u64,
}

impl Snapshot {
    fn sum(&self, of: impl Fn(&LaneSnapshot) -> u64) -> u64 {
        self.lanes.iter().map(of).sum()
    }

    /// Over all transports.
    #[must_use]
    pub fn received_spans(&self) -> u64 {
        self.sum(|lane| lane.received_spans)
    }

    /// Over all transports.
    #[must_use]
    pub fn accepted_spans(&self) -> u64 {
        self.sum(|lane| lane.accepted_spans)
    }

    /// Over all transports.
    #[must_use]
    pub fn rejected_spans(&self) -> u64 {
        self.sum(|lane| lane.rejected_spans)
    }

    /// Over all transports and reasons.
    #[must_use]
    pub fn refused_spans(&self) -> u64 {
        self.sum(|lane| lane.refused_spans.iter().sum())
    }

    /// Over all transports.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.sum(|lane| lane.requests)
    }

    /// Over all transports and reasons.
    #[must_use]
    pub fn refused_requests(&self) -> u64 {
        self.sum(|lane| lane.refused.iter().sum())
    }
}

impl Counters {
    pub(crate) fn new(in_flight: Arc<InFlight>, kept: Option<Kept>) -> Self {
        Self {
            lanes: Default::default(),
            inflated_bytes: AtomicU64::new(0),
            stray_spans: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            in_flight,
            kept,
        }
    }

    /// What they say now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            lanes: self.lanes.each_ref().map(Lane::snapshot),
            inflated_bytes: self.inflated_bytes.load(Relaxed),
            stray_spans: self.stray_spans.load(Relaxed),
            accept_errors: self.accept_errors.load(Relaxed),
            connections: self.connections.load(Relaxed),
            connections_open: self.connections_open.load(Relaxed),
            in_flight_bytes: self.in_flight.used() as u64,
            in_flight_max_bytes: self.in_flight.total() as u64,
        }
    }

    fn lane(&self, transport: Transport) -> &Lane {
        &self.lanes[transport as usize]
    }

    pub(crate) fn request(&self, transport: Transport) {
        self.lane(transport).requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn body(&self, transport: Transport, bytes: usize) {
        self.lane(transport).body_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn answered(&self, transport: Transport, partial: bool, after: Duration) {
        let lane = self.lane(transport);
        let millis = after.as_millis() as u64;
        let bucket = ANSWER_MILLIS.iter().position(|&bound| millis < bound).unwrap_or(ANSWER_MILLIS.len());
        lane.answered.fetch_add(1, Relaxed);
        lane.partial.fetch_add(u64::from(partial), Relaxed);
        lane.answer_times[bucket].fetch_add(1, Relaxed);
        lane.answer_micros.fetch_add(after.as_micros() as u64, Relaxed);
    }

    pub(crate) fn refused(&self, transport: Transport, reason: Reason) {
        self.lane(transport).refused[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn received_spans(&self, transport: Transport, spans: u64) {
        self.lane(transport).received_spans.fetch_add(spans, Relaxed);
    }

    // The outcomes are released after `received_spans` and read before it: a snapshot never shows more out than in.

    pub(crate) fn accepted_spans(&self, transport: Transport, spans: u32) {
        self.lane(transport).accepted_spans.fetch_add(spans.into(), Release);
    }

    pub(crate) fn rejected_spans(&self, transport: Transport, spans: u32) {
        if let Some(kept) = &self.kept {
            kept.add(What::Rejected, transport, "", spans);
        }
        self.lane(transport).rejected_spans.fetch_add(spans.into(), Release);
    }

    pub(crate) fn refused_spans(&self, transport: Transport, reason: Reason, spans: u32) {
        if let Some(kept) = &self.kept {
            kept.add(What::Refused, transport, reason.as_str(), spans);
        }
        self.lane(transport).refused_spans[reason as usize].fetch_add(spans.into(), Release);
    }

    /// Makes what is kept for good durable.
    pub(crate) fn sync(&self) {
        if let Some(kept) = &self.kept {
            kept.counts.sync();
        }
    }

    pub(crate) fn stray_spans(&self, spans: u32) {
        self.stray_spans.fetch_add(spans.into(), Relaxed);
    }

    pub(crate) fn inflated(&self, bytes: usize) {
        self.inflated_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn accept_error(&self) {
        self.accept_errors.fetch_add(1, Relaxed);
    }

    pub(crate) fn opened(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connections_open.fetch_add(1, Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.connections_open.fetch_sub(1, Relaxed);
    }
}

impl Lane {
    fn snapshot(&self) -> LaneSnapshot {
        let accepted_spans = self.accepted_spans.load(Acquire);
        let rejected_spans = self.rejected_spans.load(Acquire);
        let refused_spans = self.refused_spans.each_ref().map(|spans| spans.load(Acquire));
        LaneSnapshot {
            requests: self.requests.load(Relaxed),
            body_bytes: self.body_bytes.load(Relaxed),
            answered: self.answered.load(Relaxed),
            partial: self.partial.load(Relaxed),
            refused: self.refused.each_ref().map(|requests| requests.load(Relaxed)),
            received_spans: self.received_spans.load(Relaxed),
            accepted_spans,
            rejected_spans,
            refused_spans,
        }
    }
}
