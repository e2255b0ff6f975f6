//! What it takes to inflate a body, read from its headers before anything is allocated.
//!
//! Promise: the decoder takes no more than `decoder_bytes`, whatever comes later in the body. `expected_bytes` is only what the
//! body claims.

use std::io;

use zstd::zstd_safe;

use super::Coding;

/// RFC 9659: 8 MiB is what an encoder may ask for and a decoder must give.
pub(super) const WINDOW_LOG_MAX: u32 = 23;
const WINDOW_BYTES_MAX: u64 = 1 << WINDOW_LOG_MAX;
/// Deflate's window, its tables, and the state around them.
const DEFLATE_BYTES: usize = 64 << 10;
/// zstd's tables and buffers, its window aside.
const ZSTD_BYTES: usize = 512 << 10;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) decoder_bytes: usize,
    pub(super) expected_bytes: usize,
}

pub(super) fn of(coding: Coding, wire: &[u8]) -> io::Result<Needs> {
    match coding {
        Coding::Gzip => {
            // The last member's length stands at its end.
            let claimed = wire.last_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
            // Deflate cannot do better than 1032 to 1.
            let expected_bytes = claimed.min(wire.len().saturating_mul(1032));
            Ok(Needs { decoder_bytes: DEFLATE_BYTES, expected_bytes })
        }
        Coding::Zstd => zstd(wire),
        Coding::Deflate | Coding::Identity => {
            Ok(Needs { decoder_bytes: DEFLATE_BYTES, expected_bytes: wire.len().saturating_mul(4) })
        }
    }
}

/// Looks at the headers of all frames, for a later one may ask for a larger window than the first.
fn zstd(wire: &[u8]) -> io::Result<Needs> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut window = 0;
    let mut expected = 0u64;
    let mut rest = wire;
    if rest.is_empty() {
        return Err(invalid("there is no frame".into()));
    }
    while !rest.is_empty() {
        let length = zstd_safe::find_frame_compressed_size(rest)
            .map_err(|code| invalid(zstd_safe::get_error_name(code).to_owned()))?;
        window = window.max(window_of(rest).unwrap_or(0));
        if window > WINDOW_BYTES_MAX {
            return Err(invalid(format!("a window of {window} bytes is larger than {WINDOW_BYTES_MAX}")));
        }
        let claimed = zstd_safe::get_frame_content_size(rest).ok().flatten();
        expected = expected.saturating_add(claimed.unwrap_or(length as u64 * 4));
        rest = rest.get(length.max(1)..).unwrap_or_default();
    }
    let expected_bytes = usize::try_from(expected).unwrap_or(usize::MAX);
    Ok(Needs { decoder_bytes: ZSTD_BYTES + window as usize, expected_bytes })
}

/// RFC 8878, 3.1.1.1: the window that a frame asks for; none for what is no frame, or one to be skipped.
fn window_of(frame: &[u8]) -> Option<u64> {
    let [descriptor, rest @ ..] = frame.strip_prefix(&ZSTD_MAGIC)? else { return None };
    let is_single_segment = descriptor & 0x20 != 0;
    if is_single_segment {
        // Such a frame is its own window.
        return zstd_safe::get_frame_content_size(frame).ok().flatten();
    }
    let window = rest.first()?;
    let base = 1u64 << (10 + (window >> 3));
    Some(base + base / 8 * u64::from(window & 7))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The window is read as zstd writes it, whichever frame asks for it.
    #[test]
    fn windows_are_read_from_every_frame() {
        let with_window = |log: u32| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.include_contentsize(false).unwrap();
            encoder.write_all(b"small").unwrap();
            encoder.finish().unwrap()
        };
        for log in 10..=23 {
            assert_eq!(window_of(&with_window(log)), Some(1 << log), "2^{log}");
            let later = [with_window(10), with_window(log)].concat();
            assert_eq!(zstd(&later).unwrap().decoder_bytes, ZSTD_BYTES + (1 << log), "2^{log}");
        }
        assert!(zstd(&[with_window(10), with_window(24)].concat()).is_err());
    }

    /// What a body claims to be is what is made room for, and no more than it can be.
    #[test]
    fn claims_are_read() {
        let body = vec![7; 100_000];
        let whole = zstd::bulk::compress(&body, 3).unwrap();
        assert_eq!(zstd(&whole).unwrap().expected_bytes, body.len());
        assert_eq!(zstd(&[&whole[..], &whole].concat()).unwrap().expected_bytes, 2 * body.len());
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&body).unwrap();
        assert_eq!(of(Coding::Gzip, &encoder.finish().unwrap()).unwrap().expected_bytes, body.len());
        assert_eq!(of(Coding::Gzip, &[0xff; 10]).unwrap().expected_bytes, 10_320, "a lie has its bound");
    }
}
