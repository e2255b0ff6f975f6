//! What fuzz targets reach of this room's inside: how a request is cut, and how an endpoint's answer is read.
//!
//! Not an interface: nothing but `fuzz/` may use it.

use std::time::Duration;

use bytes::Bytes;
use emberd_model::ledger::Runs;
use emberd_model::{Offset, UnixNanos};
use http::{HeaderValue, StatusCode};

use super::answer;
use super::load::{Load, Part};

/// A piece of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// An encoded request.
    pub body: Bytes,
    /// How many spans of the whole lie before it.
    pub first: u64,
    /// How many spans it holds.
    pub spans: u64,
}

impl From<&Part> for Piece {
    fn from(part: &Part) -> Self {
        Self { body: part.body.clone(), first: part.first.0, spans: part.spans }
    }
}

/// A request of so many spans, cut within these bounds.
#[must_use]
pub fn cut(body: Bytes, spans: u64, bytes_max: usize, spans_max: u64) -> Vec<Piece> {
    let part = Part { body, first: Offset(0), spans, accounts: Runs::default() };
    part.cut(bytes_max, spans_max).iter().map(Piece::from).collect()
}

/// A request of so many spans, halved until every load holds one span; in order.
#[must_use]
pub fn singles(body: Bytes, spans: u64) -> Vec<Piece> {
    let (mut singles, mut stack) =
        (Vec::new(), vec![Load::from(Part { body, first: Offset(0), spans, accounts: Runs::default() })]);
    while let Some(load) = stack.pop() {
        match load.halves() {
            Ok([left, right]) => stack.extend([right, left]),
            Err(single) => singles.extend(single.parts.iter().map(Piece::from)),
        }
    }
    singles
}

/// What an answer that is no success means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its word in the metrics.
    pub class: &'static str,
    /// How long the endpoint asks to be left alone.
    pub wait: Option<Duration>,
    /// What is kept of what it said.
    pub said: String,
}

impl From<answer::Failure> for Reading {
    fn from(failure: answer::Failure) -> Self {
        Self { class: failure.class(), wait: failure.wait, said: failure.said }
    }
}

/// Reads an HTTP answer that is not 200.
#[must_use]
pub fn of_http(status: StatusCode, retry_after: Option<&HeaderValue>, body: &[u8], now: UnixNanos) -> Reading {
    answer::of_http(status, retry_after, body, now).into()
}

/// Reads a gRPC status.
#[must_use]
pub fn of_grpc(status: &tonic::Status) -> Reading {
    answer::of_grpc(status).into()
}

/// Reads the body of a success: spans that were not taken, and what is kept of what was said about them.
#[must_use]
pub fn taken(body: &[u8]) -> (u64, String) {
    let taken = answer::taken(body);
    (taken.rejected, taken.said)
}
