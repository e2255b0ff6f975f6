//! Parquet's packings of whole numbers: runs and bits (levels, numbers in a dictionary), and differences.
//!
//! On disk: "RLE / Bit-Packing Hybrid" and "DELTA_BINARY_PACKED" of the format's Encodings.md.
//! Kept by:  `tests` (the `parquet` crate reads what is packed here), the round trips in `tests/`.

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// How many bits the numbers up to `most` need.
pub(super) fn width_of(most: u32) -> u32 {
    u32::BITS - most.leading_zeros()
}

/// Appends numbers of at most `width` bits as runs of equal ones and packed groups of eight.
pub(super) fn put_hybrid<T: Copy + Eq + Into<u32>>(out: &mut Vec<u8>, values: &[T], width: u32) {
    let mut at = 0;
    // Where the numbers begin that are still to be packed: they are a multiple of eight when a run follows.
    let mut loose = 0;
    while at < values.len() {
        let value = values[at];
        let run = values[at..].iter().take_while(|&&next| next == value).count();
        let to_fill = (8 - (at - loose) % 8) % 8;
        if run >= to_fill + 8 {
            put_packed(out, &values[loose..at + to_fill], width);
            let run = run - to_fill;
            put_varint(out, (run as u64) << 1);
            out.extend_from_slice(&value.into().to_le_bytes()[..width.div_ceil(8) as usize]);
            at += to_fill + run;
            loose = at;
        } else {
            at += run;
        }
    }
    put_packed(out, &values[loose..], width);
}

/// Appends numbers packed by bits, the last group filled up with zeros.
fn put_packed<T: Copy + Into<u32>>(out: &mut Vec<u8>, values: &[T], width: u32) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    put_varint(out, (groups as u64) << 1 | 1);
    let end = out.len() + groups * width as usize;
    let (mut bits, mut held) = (0_u64, 0);
    for &value in values {
        bits |= u64::from(value.into()) << held;
        held += width;
        while held >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            held -= 8;
        }
    }
    if held > 0 {
        out.push(bits as u8);
    }
    out.resize(end, 0);
}

const BLOCK: usize = 128;
const MINIBLOCK: usize = 32;

/// Appends numbers as their first and the differences of each to the one before.
pub(super) fn put_delta(out: &mut Vec<u8>, values: &[i64]) {
    put_varint(out, BLOCK as u64);
    put_varint(out, (BLOCK / MINIBLOCK) as u64);
    put_varint(out, values.len() as u64);
    put_zigzag(out, values.first().copied().unwrap_or(0));
    let mut deltas = [0_i64; BLOCK];
    let mut last = values.first().copied().unwrap_or(0);
    for block in values.get(1..).unwrap_or_default().chunks(BLOCK) {
        for (delta, &value) in deltas.iter_mut().zip(block) {
            *delta = value.wrapping_sub(last);
            last = value;
        }
        put_block(out, &deltas[..block.len()]);
    }
}

fn put_block(out: &mut Vec<u8>, deltas: &[i64]) {
    let least = deltas.iter().copied().min().unwrap_or(0);
    put_zigzag(out, least);
    let widths = out.len();
    out.extend_from_slice(&[0; BLOCK / MINIBLOCK]);
    for (nth, mini) in deltas.chunks(MINIBLOCK).enumerate() {
        let above = |delta: i64| delta.wrapping_sub(least) as u64;
        let all = mini.iter().fold(0, |all, &delta| all | above(delta));
        let width = u64::BITS - all.leading_zeros();
        out[widths + nth] = width as u8;
        let end = out.len() + MINIBLOCK * width as usize / 8;
        let (mut bits, mut held) = (0_u128, 0);
        for &delta in mini {
            bits |= u128::from(above(delta)) << held;
            held += width;
            if held >= 64 {
                out.extend_from_slice(&(bits as u64).to_le_bytes());
                bits >>= 64;
                held -= 64;
            }
        }
        out.extend_from_slice(&(bits as u64).to_le_bytes()[..held.div_ceil(8) as usize]);
        out.resize(end, 0);
    }
}
