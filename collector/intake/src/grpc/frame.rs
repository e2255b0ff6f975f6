//! gRPC's length-prefixed message: `compressed u8 | length u32, big endian | message`, laid over HTTP/2 frames as they happen to fall.
//!
//! Promise: the length is checked before anything is allocated; a message in one HTTP/2 frame is not copied, any other once.

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;

use crate::body::{Pieces, unpinned};
use crate::in_flight::{Held, InFlight};
use crate::refusal::Refusal;

pub(super) const PREFIX_BYTES: usize = 5;

#[derive(Debug)]
pub(super) struct Message {
    pub(super) compressed: bool,
    pub(super) bytes: Bytes,
}

/// The one message of a unary call; the body must end with it.
pub(super) async fn message<B>(
    body: &mut Pieces<B>,
    max_bytes: usize,
    in_flight: &InFlight,
) -> Result<(Message, Held), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut prefix = [0; PREFIX_BYTES];
    let mut filled = 0;
    let mut rest = Bytes::new();
    while filled < PREFIX_BYTES {
        rest = body.next().await?.ok_or(Refusal::Framing("the body ends before its message begins"))?;
        let taken = rest.len().min(PREFIX_BYTES - filled);
        rest.copy_to_slice(&mut prefix[filled..filled + taken]);
        filled += taken;
    }
    let [flag, length @ ..] = prefix;
    let compressed = match flag {
        0 => false,
        1 => true,
        _ => return Err(Refusal::Framing("the compressed flag is neither 0 nor 1")),
    };
    let length = u32::from_be_bytes(length) as usize;
    if length > max_bytes {
        return Err(Refusal::TooLarge { max_bytes });
    }
    let held = in_flight.hold(length).await?;
    let bytes = gather(body, rest, length).await?;
    match body.next().await? {
        None => Ok((Message { compressed, bytes }, held)),
        Some(_) => Err(SECOND),
    }
}

const SECOND: Refusal = Refusal::Framing("a second message in a unary call");

async fn gather<B>(body: &mut Pieces<B>, first: Bytes, length: usize) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    if first.len() == length {
        return Ok(unpinned(first));
    }
    if first.len() > length {
        return Err(SECOND);
    }
    let mut whole = BytesMut::with_capacity(length);
    whole.extend_from_slice(&first);
    drop(first);
    while whole.len() < length {
        let piece = body.next().await?.ok_or(Refusal::Framing("the body ends within its message"))?;
        if piece.len() > length - whole.len() {
            return Err(SECOND);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests;
