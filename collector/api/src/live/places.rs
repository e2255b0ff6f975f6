//! How many connections there may be: all of them, and those of one address that have not shown a token yet.
//!
//! Promise: a place is given back when its connection is gone, however it went, for it lives in the connection's own request.
//! Kept by: `tests` below, `daemon/tests/app/sockets.cjs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::Whose;

const ALL_MAX: usize = 4_096;
/// Of one address that have shown no token.
const UNKNOWN_MAX: usize = 32;

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    unknown: HashMap<Whose, usize>,
}

impl Taken {
    fn known(&mut self, whose: Whose) {
        if let Some(count) = self.unknown.get_mut(&whose) {
            *count -= 1;
            if *count == 0 {
                self.unknown.remove(&whose);
            }
        }
    }
}

/// All places.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

/// One, held by a connection.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    whose: Whose,
    is_known: Mutex<bool>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    All,
    Address,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, whose: Whose) -> Result<Place, Full> {
        let mut taken = self.taken();
        if taken.all >= ALL_MAX {
            return Err(Full::All);
        }
        let unknown = taken.unknown.entry(whose).or_default();
        if *unknown >= UNKNOWN_MAX {
            return Err(Full::Address);
        }
        *unknown += 1;
        taken.all += 1;
        Ok(Place { places: self.clone(), whose, is_known: Mutex::new(false) })
    }

    pub(super) fn all(&self) -> usize {
        self.taken().all
    }
}

impl Place {
    /// A token was shown and believed.
    pub(super) fn known(&self) {
        let mut is_known = self.is_known.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut is_known, true) {
            self.places.taken().known(self.whose);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.known();
        self.places.taken().all -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn an_address_has_so_many_until_it_is_known() {
        let places = Places::default();
        let at = |last| Whose::stranger(IpAddr::from([10, 0, 0, last]));
        let mut held: Vec<Place> = (0..UNKNOWN_MAX).map(|_| places.take(at(1)).unwrap()).collect();
        assert_eq!(places.take(at(1)).unwrap_err(), Full::Address);
        held.push(places.take(at(2)).unwrap());
        held[0].known();
        held[0].known();
        held.push(places.take(at(1)).unwrap());
        assert_eq!(places.take(at(1)).unwrap_err(), Full::Address);
        held.truncate(1);
        assert_eq!((places.all(), places.taken().unknown.len()), (1, 0));
        held.extend((0..ALL_MAX - 1).map(|nr| {
            let place = places.take(at((nr % 200) as u8)).unwrap();
            place.known();
            place
        }));
        assert_eq!(places.take(at(7)).unwrap_err(), Full::All);
        drop(held);
        assert_eq!(places.all(), 0);
    }
}
