//! What fuzz targets reach of this room's inside, each on the calling thread.
//!
//! Not an interface: nothing but `fuzz/` may use it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::Instant;

use crate::body::{Patience, Pieces};
use crate::counters::Counters;
use crate::grpc;
use crate::in_flight::InFlight;
use crate::inflate::{self, Coding};
use crate::refusal::Refusal;

/// What became of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It came out.
    Whole(Bytes),
    /// It has more bytes than were allowed.
    TooLarge,
    /// It cannot be read.
    Refused(String),
}

impl From<Result<Bytes, Refusal>> for Outcome {
    fn from(result: Result<Bytes, Refusal>) -> Self {
        match result {
            Ok(bytes) => Self::Whole(bytes),
            Err(Refusal::TooLarge { .. }) => Self::TooLarge,
            Err(other) => Self::Refused(other.to_string()),
        }
    }
}

/// Inflates a body in the coding of this name; also says how many bytes were set aside for it in the end.
///
/// Must be polled within a runtime that has a clock.
pub async fn inflated(coding: &str, wire: Bytes, max_bytes: usize) -> Option<(Outcome, usize)> {
    let coding = Coding::named(coding)?;
    let in_flight = Arc::new(InFlight::new(1 << 30, Duration::ZERO));
    let counters = Counters::new(Arc::clone(&in_flight), None);
    let mut held = in_flight.hold(wire.len()).await.ok()?;
    let outcome = inflate::inflate(coding, wire, max_bytes, &in_flight, &mut held, &counters).await;
    Some((outcome.into(), held.bytes()))
}

/// The one message of a call's body, which came in these pieces, and whether it is marked as compressed.
///
/// Must be polled within a runtime that has a clock.
pub async fn message(pieces: Vec<Bytes>, max_bytes: usize) -> (Outcome, bool) {
    let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let mut body = Pieces::of(
        StreamBody::new(stream::iter(frames)),
        Patience { idle: Duration::from_secs(1), bytes_per_second_min: 0 },
    );
    let in_flight = InFlight::new(1 << 30, Duration::ZERO);
    match grpc::frame::message(&mut body, max_bytes, &in_flight).await {
        Ok((message, _held)) => (Outcome::Whole(message.bytes), message.compressed),
        Err(refusal) => (Err(refusal).into(), false),
    }
}

/// How long a call with this `grpc-timeout` may take; none if it is malformed.
#[must_use]
pub fn timeout(value: HeaderValue, longest: Duration) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", value);
    let since = Instant::now();
    let deadline = grpc::timeout::deadline(&headers, since, longest).ok()?;
    Some(deadline.duration_since(since))
}
