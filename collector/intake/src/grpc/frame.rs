//! gRPC's length-prefixed message: `compressed u8 | length u32, big endian | message`, laid over HTTP/2 frames as they happen to fall.
//!
//! Promise: the length is checked before anything is allocated, and nothing is allocated for it until the message comes; a
//! message in one HTTP/2 frame is not copied.
//! Not here: how a body is gathered and paid for (`body`).

use bytes::{Buf, Bytes};
use http_body::Body;

use crate::body::Pieces;
use crate::in_flight::{Held, InFlight};
use crate::refusal::Refusal;

pub(super) const PREFIX_BYTES: usize = 5;

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) compressed: bool,
    pub(crate) bytes: Bytes,
}

/// The one message of a unary call; the body must end with it.
pub(crate) async fn message<B>(
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
    // What goes beyond the announced length can only be another message.
    let gathered = body.gather(rest, Some(length), length, in_flight).await;
    let (bytes, held) = gathered.map_err(|refusal| match refusal {
        Refusal::TooLarge { .. } => Refusal::Framing("a second message in a unary call"),
        other => other,
    })?;
    if bytes.len() < length {
        return Err(Refusal::Framing("the body ends within its message"));
    }
    Ok((Message { compressed, bytes }, held))
}

#[cfg(test)]
mod tests;
