//! A request's body, gathered: no byte is copied more than once, none is read that was not paid for.
//!
//! Promise: a body that came in one piece stays that piece; any other is copied once, into a buffer of the declared size. What
//! is declared too large is refused before anything is allocated, what turns out too large at the byte.
//! Not here: what the bytes are (`grpc::frame`, `http`), inflating (`inflate`).

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;

use crate::in_flight::{Held, InFlight};
use crate::refusal::Refusal;

/// A piece this small is copied out, so that it does not keep the connection's whole read buffer alive until the log has it.
const PIN_BYTES_MIN: usize = 4096;
/// What is set aside for a body that does not declare its size, to begin with.
const UNDECLARED_BYTES: usize = 16 << 10;

/// The pieces of a body as they come.
pub(crate) struct Pieces<B> {
    body: B,
    idle: Duration,
}

impl<B: Body<Data = Bytes> + Unpin> Pieces<B> {
    pub(crate) fn of(body: B, idle: Duration) -> Self {
        Self { body, idle }
    }

    /// The next piece that is not empty; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            if Pin::new(&self.body).is_end_stream() {
                return Ok(None);
            }
            let Ok(frame) = tokio::time::timeout(self.idle, self.body.frame()).await else {
                return Err(Refusal::Stalled(self.idle));
            };
            match frame {
                None => return Ok(None),
                Some(Err(_reset_or_broken)) => return Err(Refusal::CutOff),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) if !piece.is_empty() => return Ok(Some(piece)),
                    // Trailers and empty frames say nothing here.
                    Ok(_) | Err(_) => {}
                },
            }
        }
    }

    /// The whole body. `declared` is its `content-length`, which hyper holds the client to.
    pub(crate) async fn whole(
        &mut self,
        declared: Option<u64>,
        max_bytes: usize,
        in_flight: &InFlight,
    ) -> Result<(Bytes, Held), Refusal> {
        if declared.is_some_and(|bytes| bytes > max_bytes as u64) {
            return Err(Refusal::TooLarge { max_bytes });
        }
        let declared = declared.map(|bytes| bytes as usize);
        let mut held = in_flight.hold(declared.unwrap_or(UNDECLARED_BYTES)).await?;
        let Some(first) = self.next().await? else { return Ok((Bytes::new(), held)) };
        let Some(second) = self.next().await? else {
            if first.len() > max_bytes {
                return Err(Refusal::TooLarge { max_bytes });
            }
            in_flight.grow(&mut held, first.len()).await?;
            held.shrink_to(first.len());
            return Ok((unpinned(first), held));
        };
        let mut whole = BytesMut::with_capacity(declared.unwrap_or_default());
        let mut piece = Some(first);
        let mut after = Some(second);
        while let Some(bytes) = piece {
            let len = whole.len() + bytes.len();
            if len > max_bytes {
                return Err(Refusal::TooLarge { max_bytes });
            }
            if len > whole.capacity() {
                // Twice what is there, so that an undeclared body is copied twice on average and not once a piece.
                let room = len.next_power_of_two().min(max_bytes);
                in_flight.grow(&mut held, room).await?;
                whole.reserve(room - whole.len());
            }
            whole.extend_from_slice(&bytes);
            piece = match after.take() {
                Some(second) => Some(second),
                None => self.next().await?,
            };
        }
        Ok((whole.freeze(), held))
    }
}

/// These bytes, without what else their buffer holds if they are few.
pub(crate) fn unpinned(bytes: Bytes) -> Bytes {
    if bytes.len() < PIN_BYTES_MIN { Bytes::copy_from_slice(&bytes) } else { bytes }
}
