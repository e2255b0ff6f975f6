//! Inflating, with a bound that holds by construction: a bomb stops at the limit, not in memory.
//!
//! Promise: never more than the limit and one byte are inflated, never more memory is taken than was set aside among the bytes
//! in flight first (and, for zstd, a window of 8 MiB), and the thread is given back after each megabyte.
//! On the wire: gzip (any number of members), zlib (which HTTP and gRPC call deflate), zstd (any number of frames). What follows
//! the last member must be nothing.
//! Not here: who asks for which (`grpc`, `http`).
//! Kept by: `tests` below, `tests/it/bounds.rs`.

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

/// RFC 9659: 8 MiB is what an encoder may ask for and a decoder must give.
const WINDOW_LOG_MAX: u32 = 23;
const STEP_BYTES: usize = 256 << 10;
const STEPS_PER_TURN: usize = 4;
const FIRST_BYTES: usize = 64 << 10;

/// Inflates `wire`, at most to `max_bytes`. `held` covers the compressed bytes before and the inflated ones after.
pub(crate) async fn inflate(
    coding: Coding,
    wire: Bytes,
    max_bytes: usize,
    in_flight: &InFlight,
    held: &mut Held,
    counters: &Counters,
) -> Result<Bytes, Refusal> {
    let undecodable =
        |problem: io::Error| Refusal::Undecodable { coding: coding.as_str(), problem: problem.to_string() };
    let mut decoder = match coding {
        Coding::Identity => return Ok(wire),
        _ => Decoder::of(coding, &wire).map_err(undecodable)?,
    };
    let first = wire.len().saturating_mul(4).clamp(FIRST_BYTES.min(max_bytes), max_bytes);
    let mut inflated = Vec::new();
    let mut steps = 0;
    loop {
        if inflated.len() == inflated.capacity() {
            if inflated.len() >= max_bytes {
                // Full to the limit: what comes now must be the end.
                return match decoder.read(&mut [0]).map_err(undecodable)? {
                    0 => break,
                    _ => Err(Refusal::TooLarge { max_bytes }),
                };
            }
            let room = (2 * inflated.capacity()).clamp(first, max_bytes);
            in_flight.grow(held, wire.len() + room).await?;
            inflated.reserve_exact(room - inflated.len());
        }
        let step = STEP_BYTES.min(inflated.capacity() - inflated.len());
        let read = (&mut decoder).take(step as u64).read_to_end(&mut inflated).map_err(undecodable)?;
        counters.inflated(read);
        if read < step {
            break;
        }
        steps += 1;
        if steps % STEPS_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    decoder.finish().map_err(undecodable)?;
    held.shrink_to(inflated.capacity());
    Ok(inflated.into())
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
                decoder.window_log_max(WINDOW_LOG_MAX)?;
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
