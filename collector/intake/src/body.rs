//! A request's body, gathered: no byte is copied more than it must be, and nothing is set aside for what is only announced.
//!
//! Promise: a body that came in one piece stays that piece, and is paid for once. Any other is gathered in a buffer that grows
//! with what has come, each step paid for before it is taken; at most four times of what has come is held. What is announced too
//! large is refused before anything is allocated, what turns out too large at the byte. A body that stalls, or comes more slowly
//! than a minimum, is let go.
//! Not here: what the bytes are (`grpc::frame`, `http`), inflating (`inflate`).
//! Kept by: `tests` below, `tests/it/slow.rs`, `tests/it/bounds.rs`.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::in_flight::{Held, InFlight};
use crate::refusal::Refusal;

/// A piece this small is copied out, so that it does not keep the connection's whole read buffer alive until the log has it.
const PIN_BYTES_MIN: usize = 4096;
/// The first step of a body that came in many pieces.
const STEP_BYTES_MIN: usize = 4096;

/// How slow a body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The pause allowed between two pieces.
    pub(crate) idle: Duration,
    /// What must come in each such time, on average for each second of it.
    pub(crate) bytes_per_second_min: usize,
}

/// The pieces of a body as they come.
pub(crate) struct Pieces<B> {
    body: B,
    patience: Patience,
    /// The time in which the body must keep up its rate, and what has come in it; begins with the first wait.
    lap: Option<Lap>,
}

struct Lap {
    ends: Instant,
    bytes: usize,
}

impl<B: Body<Data = Bytes> + Unpin> Pieces<B> {
    pub(crate) fn of(body: B, patience: Patience) -> Self {
        Self { body, patience, lap: None }
    }

    /// The next piece that is not empty; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let Patience { idle, bytes_per_second_min } = self.patience;
        let stalls_at = Instant::now() + idle;
        let lap = self.lap.get_or_insert(Lap { ends: stalls_at, bytes: 0 });
        loop {
            if Pin::new(&self.body).is_end_stream() {
                return Ok(None);
            }
            let Ok(frame) = timeout_at(stalls_at.min(lap.ends), self.body.frame()).await else {
                if stalls_at <= lap.ends {
                    return Err(Refusal::Stalled(idle));
                }
                if (lap.bytes as f64) < idle.as_secs_f64() * bytes_per_second_min as f64 {
                    return Err(Refusal::Slow { bytes: lap.bytes, within: idle });
                }
                *lap = Lap { ends: Instant::now() + idle, bytes: 0 };
                continue;
            };
            match frame {
                None => return Ok(None),
                Some(Err(_reset_or_broken)) => return Err(Refusal::CutOff),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) if !piece.is_empty() => {
                        lap.bytes += piece.len();
                        return Ok(Some(piece));
                    }
                    // Trailers and empty frames say nothing here.
                    Ok(_) | Err(_) => {}
                },
            }
        }
    }

    /// The whole body. `announced` is its `content-length`, which hyper holds the client to.
    pub(crate) async fn whole(
        &mut self,
        announced: Option<u64>,
        max_bytes: usize,
        in_flight: &InFlight,
    ) -> Result<(Bytes, Held), Refusal> {
        if announced.is_some_and(|bytes| bytes > max_bytes as u64) {
            return Err(Refusal::TooLarge { max_bytes });
        }
        self.gather(Bytes::new(), announced.map(|bytes| bytes as usize), max_bytes, in_flight).await
    }

    /// The body from `first` on to its end, and what it holds of the bytes in flight.
    pub(crate) async fn gather(
        &mut self,
        mut first: Bytes,
        announced: Option<usize>,
        max_bytes: usize,
        in_flight: &InFlight,
    ) -> Result<(Bytes, Held), Refusal> {
        if first.is_empty() && announced != Some(0) {
            first = self.next().await?.unwrap_or_default();
        }
        if first.len() > max_bytes {
            return Err(Refusal::TooLarge { max_bytes });
        }
        let mut held = in_flight.hold(first.len()).await?;
        if announced != Some(first.len()) {
            in_flight.is_coming(&mut held).await?;
        }
        let Some(second) = self.next().await? else {
            held.has_come();
            return Ok((unpinned(first), held));
        };
        let mut whole = BytesMut::new();
        let mut piece = Some(first);
        let mut after = Some(second);
        while let Some(bytes) = piece {
            let len = whole.len() + bytes.len();
            if len > max_bytes {
                return Err(Refusal::TooLarge { max_bytes });
            }
            if len > whole.capacity() {
                let room = room(len, announced, max_bytes);
                // While the old buffer is copied into the new one, both are there.
                in_flight.grow(&mut held, whole.capacity() + room).await?;
                let mut larger = BytesMut::with_capacity(room);
                larger.extend_from_slice(&whole);
                whole = larger;
                held.shrink_to(room);
            }
            whole.extend_from_slice(&bytes);
            piece = match after.take() {
                Some(second) => Some(second),
                None => self.next().await?,
            };
        }
        held.has_come();
        Ok((whole.freeze(), held))
    }
}

/// The buffer for a body of which `len` bytes have come. Who has sent a quarter of what was announced gets room for the rest;
/// who announced nothing, for as much again.
fn room(len: usize, announced: Option<usize>, max_bytes: usize) -> usize {
    let earned = match announced {
        Some(announced) => len.saturating_mul(4).min(announced),
        None => len.saturating_mul(2),
    };
    earned.max(STEP_BYTES_MIN).min(max_bytes).max(len)
}

/// These bytes, without what else their buffer holds if they are few.
pub(crate) fn unpinned(bytes: Bytes) -> Bytes {
    if bytes.len() < PIN_BYTES_MIN { Bytes::copy_from_slice(&bytes) } else { bytes }
}

#[cfg(test)]
mod tests;
