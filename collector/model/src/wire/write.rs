//! Writing the wire format: fields whose length is known only once they are written.
//!
//! A message is written behind one byte for its length; where the length needs more, the message is moved up. So
//! nothing is measured beforehand and nothing is written twice; a byte is moved at most once for each message around it
//! that is longer than 127 bytes.

use super::read::{FIXED32, FIXED64, LENGTH, VARINT, key};

/// A message that is being written: where its payload begins.
#[derive(Clone, Copy)]
#[must_use]
pub(crate) struct Open(usize);

/// Begins field `number`, a message.
pub(crate) fn open(out: &mut Vec<u8>, number: u32) -> Open {
    put_key(out, number, LENGTH);
    out.push(0);
    Open(out.len())
}

/// Ends the message that was begun there.
pub(crate) fn close(out: &mut Vec<u8>, Open(payload): Open) {
    let end = out.len();
    let mut length = (end - payload) as u64;
    // The length's further bytes go to the end first, only to make room.
    let mut at = payload - 1;
    let mut more = length >> 7;
    while more > 0 {
        out.push(0);
        more >>= 7;
    }
    let moved = out.len() - end;
    if moved > 0 {
        out.copy_within(payload..end, payload + moved);
    }
    while length >= 0x80 {
        out[at] = length as u8 | 0x80;
        length >>= 7;
        at += 1;
    }
    out[at] = length as u8;
}

/// Writes field `number`, text or bytes or an encoded message.
pub(crate) fn bytes(out: &mut Vec<u8>, number: u32, payload: &[u8]) {
    put_key(out, number, LENGTH);
    crate::varint::put_bytes(out, payload);
}

/// Writes field `number`, a varint.
pub(crate) fn varint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_key(out, number, VARINT);
    crate::varint::put(out, value);
}

/// Writes field `number`, eight bytes.
pub(crate) fn fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_key(out, number, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes field `number`, four bytes.
pub(crate) fn fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    put_key(out, number, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_key(out: &mut Vec<u8>, number: u32, wire: u32) {
    crate::varint::put(out, u64::from(key(number, wire)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a message's length, it reads back, and what stands before and behind it is untouched.
    #[test]
    fn lengths_of_all_sizes_are_patched_in() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 2_097_152] {
            let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let mut patched = b"before".to_vec();
            let message = open(&mut patched, 19);
            patched.extend_from_slice(&payload);
            close(&mut patched, message);
            let mut measured = b"before".to_vec();
            bytes(&mut measured, 19, &payload);
            assert!(patched == measured, "{length}");
        }
    }
}
