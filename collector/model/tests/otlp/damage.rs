//! Damage to bytes: a flipped bit, a lost piece.

use proptest::prelude::*;

/// Something that happens to bytes on their way; places are taken modulo the length.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    Flip { at: usize, bit: u8 },
    Set { at: usize, to: u8 },
    Cut { from: usize },
    Remove { from: usize, length: usize },
    Insert { at: usize, byte: u8 },
    Splice { from: usize, length: usize, to: usize },
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>;
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        2 => (at(), any::<u8>()).prop_map(|(at, to)| Damage::Set { at, to }),
        1 => at().prop_map(|from| Damage::Cut { from }),
        1 => (at(), 1..40usize).prop_map(|(from, length)| Damage::Remove { from, length }),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert { at, byte }),
        2 => (at(), 1..80usize, at()).prop_map(|(from, length, to)| Damage::Splice { from, length, to }),
    ]
}

pub(crate) fn suffer(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match *damage {
        Damage::Flip { at, bit } => bytes[at % length] ^= 1 << bit,
        Damage::Set { at, to } => bytes[at % length] = to,
        Damage::Cut { from } => bytes.truncate(from % length),
        Damage::Remove { from, length: some } => {
            let from = from % length;
            bytes.drain(from..(from + some).min(length));
        }
        Damage::Insert { at, byte } => bytes.insert(at % length, byte),
        Damage::Splice { from, length: some, to } => {
            let from = from % length;
            let some = bytes[from..(from + some).min(length)].to_vec();
            let to = to % length;
            bytes.splice(to..to, some);
        }
    }
}
