//! Inflating, with a bound that holds by construction: a bomb stops at the limit, not in memory.
//!
//! Promise: no more than the limit and one byte is inflated; all memory that it takes, the decoder's own included, is set aside
//! among the bytes in flight first; the thread is given back after each megabyte.
//! On the wire: gzip (any number of members), zlib (which HTTP and gRPC call deflate), zstd (any number of frames). What follows
//! the last member must be nothing.
//! Not here: who asks for which (`grpc`, `http`).
//! Kept by: `tests` below, `tests/it/bounds.rs`.

mod needs;

use std::io::{self, Read};

use bytes::Bytes;

use crate::counters::Counters;
use crate::in_flight::{Held, InFlight};
use crate::refusal::Refusal;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
}

impl Coding {
    /// The coding of this name, as `grpc-encoding` and `content-encoding` write it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name {
            _ if name.is_empty() || is("identity") => Some(Self::Identity),
            _ if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            _ if is("deflate") => Some(Self::Deflate),
            _ if is("zstd") => Some(Self::Zstd),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

const STEP_BYTES: usize = 256 << 10;
const STEPS_PER_TURN: usize = 4;
const FIRST_BYTES: usize = 16 << 10;
const NEXT_BYTES_MAX: usize = 1 << 20;

/// Inflates `wire`, at most to `max_bytes`. `held` covers the compressed bytes before and the inflated ones after.
pub(crate) async fn inflate(
    coding: Coding,
    wire: Bytes,
    max_bytes: usize,
    in_flight: &InFlight,
    held: &mut Held,
    counters: &Counters,
) -> Result<Bytes, Refusal> {
    if coding == Coding::Identity {
        return Ok(wire);
    }
    let undecodable =
        |problem: io::Error| Refusal::Undecodable { coding: coding.as_str(), problem: problem.to_string() };
    let needs = needs::of(coding, &wire).map_err(undecodable)?;
    let fixed = wire.len() + needs.decoder_bytes;
    in_flight.grow(held, fixed).await?;
    let mut decoder = Decoder::of(coding, &wire).map_err(undecodable)?;
    let mut inflated = Parts::default();
    let mut room = needs.expected_bytes.max(FIRST_BYTES).min(max_bytes);
    let mut steps = 0;
    loop {
        in_flight.grow(held, fixed + inflated.len() + room).await?;
        let part = inflated.add(room);
        let mut step = 1;
        while part.len() < part.capacity() && step > 0 {
            step = (&mut decoder)
                .take(STEP_BYTES.min(part.capacity() - part.len()) as u64)
                .read_to_end(part)
                .map_err(undecodable)?;
            counters.inflated(step);
            steps += 1;
            if steps % STEPS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        // Either the end has come, or the part is full and one byte more would prove that it has not.
        let mut more = [0];
        if step == 0 || decoder.read(&mut more).map_err(undecodable)? == 0 {
            break;
        }
        room = inflated.len().clamp(FIRST_BYTES, NEXT_BYTES_MAX).min(max_bytes - inflated.len());
        if room == 0 {
            return Err(Refusal::TooLarge { max_bytes });
        }
        inflated.start = Some(more[0]);
    }
    decoder.finish().map_err(undecodable)?;
    drop(wire);
    inflated.join(in_flight, held).await
}

/// What was inflated so far. Parts are not moved while there may be more to come, so that a bomb takes its limit and not twice of it.
#[derive(Default)]
struct Parts {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// The byte with which the next part begins.
    start: Option<u8>,
}

impl Parts {
    fn len(&self) -> usize {
        self.full.iter().map(Vec::len).sum::<usize>() + self.last.len()
    }

    /// Begins a part with room for this many bytes.
    fn add(&mut self, room: usize) -> &mut Vec<u8> {
        let mut part = Vec::with_capacity(room);
        part.extend(self.start.take());
        let before = std::mem::replace(&mut self.last, part);
        if !before.is_empty() {
            self.full.push(before);
        }
        &mut self.last
    }

    /// All parts as one; no copy if there is but one, as for all bodies that say truly how large they are.
    async fn join(self, in_flight: &InFlight, held: &mut Held) -> Result<Bytes, Refusal> {
        if self.full.is_empty() {
            held.shrink_to(self.last.capacity());
            return Ok(self.last.into());
        }
        let len = self.len();
        in_flight.grow(held, 2 * len).await?;
        let mut whole = Vec::with_capacity(len);
        for part in self.full {
            whole.extend_from_slice(&part);
        }
        whole.extend_from_slice(&self.last);
        held.shrink_to(len);
        Ok(whole.into())
    }
}

enum Decoder<'a> {
    Gzip(flate2::bufread::MultiGzDecoder<&'a [u8]>),
    Zlib(flate2::bufread::ZlibDecoder<&'a [u8]>),
    Zstd(Box<zstd::stream::read::Decoder<'static, &'a [u8]>>),
}

impl<'a> Decoder<'a> {
    fn of(coding: Coding, wire: &'a [u8]) -> io::Result<Self> {
        Ok(match coding {
            Coding::Deflate => Self::Zlib(flate2::bufread::ZlibDecoder::new(wire)),
            Coding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(wire)?;
                decoder.window_log_max(needs::WINDOW_LOG_MAX)?;
                Self::Zstd(Box::new(decoder))
            }
            Coding::Gzip | Coding::Identity => Self::Gzip(flate2::bufread::MultiGzDecoder::new(wire)),
        })
    }

    /// Whether the body ends where the compressed stream does.
    fn finish(self) -> io::Result<()> {
        let left = match self {
            // Both go on to the next member by themselves, and fail on what is none.
            Self::Gzip(_) | Self::Zstd(_) => 0,
            Self::Zlib(decoder) => decoder.into_inner().len(),
        };
        if left == 0 { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "bytes after the end")) }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zlib(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}

#[cfg(test)]
mod tests;
