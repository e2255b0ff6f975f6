//! What fuzz targets reach of this room's inside: the body of an entry, given its right check sum.
//!
//! Not an interface: nothing but `fuzz/` may use it.

use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::manifest::{Entry, TAIL, hex};
use super::name::entry_name;
use super::state::State;

/// Reads a body, all of an entry before the comma and the check sum, as the entry `seq` of `log`; and what it adds up to alone.
pub fn read(log: &str, seq: u64, body: &[u8]) -> Result<(Entry, Option<State>), Error> {
    let sum: [u8; 32] = Sha256::digest(body).into();
    let bytes = [body, TAIL.0.as_bytes(), hex(&sum).as_bytes(), TAIL.1.as_bytes()].concat();
    let (entry, sum) = Entry::decode(&entry_name(log, seq), &bytes)?;
    let mut state = State::empty(log);
    let taken = state.take(entry.clone(), sum);
    Ok((entry, taken.is_ok().then_some(state)))
}
