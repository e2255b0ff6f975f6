//! What the doors do before they know what a body holds: inflating it, and taking a message out of its frames.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use emberd_intake::inside::{self, Outcome};
use http::HeaderValue;

use super::head;
use crate::memory;

thread_local! {
    static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
    );
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with_borrow(|runtime| runtime.block_on(future))
}

/// By the last bits of a byte.
const CODINGS: [&str; 4] = ["gzip", "deflate", "zstd", "identity"];

fn compressed(coding: &str, body: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::fast();
    let written = match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).and_then(|()| encoder.finish())
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).and_then(|()| encoder.finish())
        }
        "zstd" => zstd::bulk::compress(body, 1),
        _ => Ok(body.to_vec()),
    };
    written.expect("memory takes what is written")
}

pub(super) fn inflate_seeds() -> Vec<Vec<u8>> {
    let body = b"{\"resourceSpans\":[{\"scopeSpans\":[]}]} and again {\"resourceSpans\":[{\"scopeSpans\":[]}]}";
    let mut seeds = Vec::new();
    for (nth, coding) in CODINGS.iter().enumerate() {
        let wire = compressed(coding, body);
        seeds.push([&[nth as u8, 255][..], &wire].concat());
        seeds.push([&[nth as u8, 1][..], &wire, &wire].concat());
        seeds.push([&[nth as u8, 9][..], &compressed(coding, &vec![0; 100_000])].concat());
    }
    seeds
}

/// A body inflates to what the plain decoder makes of it, or is refused where that fails; never beyond its limit, in memory that
/// was set aside for it.
pub(super) fn inflate(input: &[u8]) {
    let ([coding, max], wire) = head::<2>(input);
    let coding = CODINGS[usize::from(coding % 4)];
    let max_bytes = 1 + 64 * usize::from(max);
    let body = Bytes::copy_from_slice(wire);
    // Twice for joining parts, and deflate's own tables; identity is the wire's own bytes.
    let bytes_max = 3 * (max_bytes + wire.len()) + (256 << 10);
    let found = memory::within(bytes_max, || wait_for(inside::inflated(coding, body, max_bytes)));
    let (outcome, held_bytes) = found.expect("a known coding");
    if coding == "identity" {
        return assert_eq!(outcome, Outcome::Whole(Bytes::copy_from_slice(wire)));
    }
    let theirs = inflated_plainly(coding, wire, max_bytes);
    match outcome {
        Outcome::Whole(body) => {
            assert!(body.len() <= max_bytes && body.len() <= held_bytes, "{} bytes", body.len());
            assert_eq!(theirs.as_deref(), Some(&body[..]), "the plain decoder makes something else of it");
        }
        Outcome::TooLarge => assert!(theirs.is_none_or(|body| body.len() > max_bytes)),
        Outcome::Refused(said) => {
            let window = said.contains("window");
            // A frame that cannot be measured from its headers is refused before it is inflated up to its fault.
            let beyond = theirs.as_ref().is_some_and(|body| body.len() > max_bytes);
            assert!(theirs.is_none() || window || beyond, "{coding}: {said}, but the plain decoder takes it");
        }
    }
}

/// What is in `wire`, up to one byte more than `max_bytes`; none if that cannot be read.
fn inflated_plainly(coding: &str, wire: &[u8], max_bytes: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let most = max_bytes as u64 + 1;
    match coding {
        "gzip" => flate2::read::MultiGzDecoder::new(wire).take(most).read_to_end(&mut body).ok()?,
        "deflate" => {
            let mut decoder = flate2::bufread::ZlibDecoder::new(wire);
            (&mut decoder).take(most).read_to_end(&mut body).ok()?;
            if body.len() <= max_bytes && !decoder.into_inner().is_empty() {
                return None;
            }
            body.len()
        }
        _ => {
            if wire.is_empty() {
                return None;
            }
            zstd::stream::read::Decoder::with_buffer(wire).ok()?.take(most).read_to_end(&mut body).ok()?
        }
    };
    Some(body)
}

/// What is compressed comes out as it went in, whole, cut off nowhere, with nothing behind it.
pub(super) fn deflate(input: &[u8]) {
    let ([coding, at, tail, _], body) = head::<4>(input);
    let coding = CODINGS[usize::from(coding % 3)];
    let wire = compressed(coding, body);
    let inflated = |wire: Vec<u8>, max_bytes| wait_for(inside::inflated(coding, wire.into(), max_bytes)).map(|f| f.0);
    let whole = Some(Outcome::Whole(Bytes::copy_from_slice(body)));
    assert_eq!(inflated(wire.clone(), body.len().max(1)), whole);
    if body.len() > 1 {
        assert_eq!(inflated(wire.clone(), body.len() - 1), Some(Outcome::TooLarge));
    }
    let cut = 1 + usize::from(at) * (wire.len() - 1) / 256;
    if cut < wire.len() {
        let part = inflated(wire[..cut].to_vec(), body.len().max(1));
        assert!(matches!(part, Some(Outcome::Refused(_))), "cut at {cut} of {}: {part:?}", wire.len());
    }
    // No member or frame begins with such a byte.
    let followed = inflated([&wire[..], &[tail | 0x80, 0x80]].concat(), body.len().max(1));
    assert!(matches!(followed, Some(Outcome::Refused(_))), "{followed:?}");
}

pub(super) fn grpc_frame_seeds() -> Vec<Vec<u8>> {
    let framed = |flag: u8, length: u32, message: &[u8]| [&[flag][..], &length.to_be_bytes(), message].concat();
    let headed = |wire: Vec<u8>| [&[3, 200, 1, 7][..], &wire].concat();
    [
        framed(1, 11, b"eleven byte"),
        framed(0, 0, b""),
        framed(2, 1, b"a"),
        framed(0, u32::MAX, b"a"),
        framed(0, 3, b"four"),
    ]
    .map(headed)
    .to_vec()
}

/// However a body falls onto frames, it is the one message whose length it says, or it is refused; lengths over the limit are
/// refused without taking memory for them.
pub(super) fn grpc_frame(input: &[u8]) {
    let ([first, max, second, step], wire) = head::<4>(input);
    let max_bytes = 16 * usize::from(max);
    let expected = match wire {
        [flag @ (0 | 1), a, b, c, d, message @ ..] => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            (length == message.len() && length <= max_bytes).then_some((Bytes::copy_from_slice(message), *flag == 1))
        }
        _ => None,
    };
    let whole = Bytes::copy_from_slice(wire);
    let (first, second) = (usize::from(first) * wire.len() / 256, usize::from(second) * wire.len() / 256);
    let (first, second) = (first.min(second), first.max(second));
    let step = usize::from(step).max(1);
    for pieces in [
        vec![whole.clone()],
        vec![whole.slice(..first), Bytes::new(), whole.slice(first..second), whole.slice(second..)],
        wire.chunks(step).map(Bytes::copy_from_slice).collect(),
    ] {
        let bytes_max = 2 * (max_bytes + wire.len()) + (64 << 10);
        let (outcome, compressed) = memory::within(bytes_max, || wait_for(inside::message(pieces, max_bytes)));
        match (outcome, &expected) {
            (Outcome::Whole(message), Some(expected)) => assert_eq!((message, compressed), *expected),
            (Outcome::Whole(message), None) => panic!("{} bytes are taken for a message", message.len()),
            (Outcome::TooLarge | Outcome::Refused(_), expected) => assert!(expected.is_none(), "a message is refused"),
        }
    }
}

pub(super) fn grpc_timeout_seeds() -> Vec<Vec<u8>> {
    ["1n", "250u", "10000m", "3S", "2M", "99999999H", "0S", "123456789S", "1.5S"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// `grpc-timeout` is one to eight digits and a unit, and never more than the config gives; all else is malformed.
pub(super) fn grpc_timeout(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let longest = Duration::from_secs(60);
    let found = wait_for(async { inside::timeout(value, longest) });
    let expected = input.split_last().and_then(|(unit, digits)| {
        let nanos: u64 = match unit {
            b'H' => 3_600_000_000_000,
            b'M' => 60_000_000_000,
            b'S' => 1_000_000_000,
            b'm' => 1_000_000,
            b'u' => 1_000,
            b'n' => 1,
            _ => return None,
        };
        let digits = str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        let count: u64 = digits.parse().ok().filter(|_| (1..=8).contains(&digits.len()))?;
        Some(Duration::from_nanos(count.saturating_mul(nanos)).min(longest))
    });
    assert_eq!(found, expected, "{input:?}");
}
