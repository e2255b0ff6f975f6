//! How often a caller may ask: a bucket for each user, and for strangers one for each address.
//!
//! Promise: a caller's bucket is its own, whatever it says of itself: a user's by the profile, a stranger's by the connection's address
//! (an IPv6 network of 64 bits is one). [`BUCKETS_MAX`] are kept; beyond it, the full ones go, for a full bucket is a new one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

const BUCKETS_MAX: usize = 20_000;

/// Whose bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    User(Uuid),
    Address(IpAddr),
}

impl Whose {
    /// A stranger's: of IPv6, whoever has one address has the network.
    pub(crate) fn stranger(address: IpAddr) -> Self {
        match address {
            IpAddr::V6(six) => match six.to_ipv4_mapped() {
                Some(four) => Self::Address(four.into()),
                None => {
                    let network = six.to_bits() & !u128::from(u64::MAX);
                    Self::Address(IpAddr::V6(network.into()))
                }
            },
            four => Self::Address(four),
        }
    }
}

/// So many at once, and so many a second after that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests a second in the long run.
    pub per_second: f64,
    /// Requests at once.
    pub burst: f64,
}

/// What one caller may do yet.
#[derive(Clone, Copy)]
pub(crate) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn full(rate: Rate, now: Instant) -> Self {
        Self { left: rate.burst, at: now }
    }

    fn filled(self, rate: Rate, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * rate.per_second).min(rate.burst)
    }

    /// Takes one; else how long until there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let left = self.filled(rate, now);
        *self = Self { left, at: now };
        if left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left) / rate.per_second.max(0.001)));
        }
        self.left = left - 1.0;
        Ok(())
    }
}

/// Buckets of one rate.
pub(crate) struct Limits(Mutex<(Rate, HashMap<Whose, Bucket>)>);

impl Limits {
    pub(crate) fn new(rate: Rate) -> Self {
        Self(Mutex::new((rate, HashMap::new())))
    }

    /// From now on this rate; what a bucket holds above its size is gone with the next taking.
    pub(crate) fn set(&self, rate: Rate) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = rate;
    }

    /// Takes one; else how long until there is one.
    pub(crate) fn take(&self, whose: Whose) -> Result<(), Duration> {
        let now = Instant::now();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate, buckets) = (held.0, &mut held.1);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&whose) {
            buckets.retain(|_, bucket| bucket.filled(rate, now) < rate.burst);
            if buckets.len() >= BUCKETS_MAX {
                buckets.clear();
            }
        }
        buckets.entry(whose).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }
}
