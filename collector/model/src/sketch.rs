//! A sketch: how many latencies fell in each bucket of an HdrHistogram (1 ms to 1 h, 3 significant digits).
//!
//! Promise: adding and taking away commute and cancel out exactly, so the sketches of several writers simply add up, and a
//! corrected row leaves no trace of the wrong one. [`Sketch::quantile`] says bit for bit what HdrHistogram says of the same
//! values: at most 0.1 % above the exact order statistic.
//! On disk:  version byte, number of buckets, then `index - index before` and the zigzag count of each, as varints.
//! Not here: windows and the sums beside a sketch ([`crate::rollup`]).
//! Kept by:  `tests::quantiles_are_those_of_hdrhistogram`, `tests::a_million_latencies_are_within_a_thousandth`.

use crate::varint::{self, Cursor};

const VERSION: u8 = 1;

/// One hour, the longest latency that is told apart.
pub const MS_MAX: u64 = 3_600_000;

/// Values below this have a bucket each: twice 10^3, rounded up to a power of two.
const SUB_BUCKETS: u64 = 2048;
const SUB_BUCKETS_HALF: u64 = SUB_BUCKETS / 2;
const HALF_BITS: u32 = SUB_BUCKETS_HALF.trailing_zeros();

/// Counts of latencies in the buckets of an HdrHistogram (1 ms to 1 h, 3 significant digits), as signed numbers,
/// so that adding and taking away commute and several writers' sketches add up.
///
/// A single writer's sketch may hold negative counts (it took away what another had added); the sum of all writers' holds none.
/// Sums wrap around instead of saturating: only so do they commute at the brink.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Sketch {
    /// Bucket index and count, by index; no count is zero.
    buckets: Vec<(u16, i64)>,
}

impl Sketch {
    /// Adds `count` (negative: takes away) latencies of `ms` milliseconds, clamped to 1 h.
    pub fn add(&mut self, ms: u64, count: i64) {
        let index = index_of(ms.min(MS_MAX));
        match self.buckets.binary_search_by_key(&index, |bucket| bucket.0) {
            Ok(at) => {
                let sum = self.buckets[at].1.wrapping_add(count);
                if sum == 0 {
                    self.buckets.remove(at);
                } else {
                    self.buckets[at].1 = sum;
                }
            }
            Err(at) if count != 0 => self.buckets.insert(at, (index, count)),
            Err(_) => {}
        }
    }

    /// Adds another sketch.
    pub fn merge(&mut self, other: &Sketch) {
        let mine = std::mem::take(&mut self.buckets);
        self.buckets.reserve(mine.len() + other.buckets.len());
        let (mut mine, mut theirs) = (mine.into_iter().peekable(), other.buckets.iter().copied().peekable());
        loop {
            let next = match (mine.peek(), theirs.peek()) {
                (Some(a), Some(b)) if a.0 == b.0 => {
                    let sum = (a.0, a.1.wrapping_add(b.1));
                    mine.next();
                    theirs.next();
                    Some(sum)
                }
                (Some(a), Some(b)) if a.0 < b.0 => mine.next(),
                (_, Some(_)) => theirs.next(),
                (Some(_), None) => mine.next(),
                (None, None) => break,
            };
            self.buckets.extend(next.filter(|bucket| bucket.1 != 0));
        }
    }

    /// The sketch that takes this one away.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self { buckets: self.buckets.iter().map(|&(index, count)| (index, count.wrapping_neg())).collect() }
    }

    /// How many latencies it holds.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(bucket.1))
    }

    /// Whether nothing was added, or all of it taken away again.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The latency below which `quantile` (0 to 1) of the values lie, as HdrHistogram's value_at_quantile says; None when empty.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        if count <= 0 {
            return None;
        }
        let quantile = quantile.min(1.0);
        // The same arithmetic as HdrHistogram's, or the last digit would differ for large counts.
        let wanted = ((quantile * count as f64).ceil() as i64).max(1);
        let mut seen = 0i64;
        let at = self.buckets.iter().find(|bucket| {
            seen = seen.wrapping_add(bucket.1);
            seen >= wanted
        });
        let (lowest, width) = range_of(at.or(self.buckets.last())?.0);
        Some(if quantile == 0.0 { lowest } else { lowest + width - 1 })
    }

    /// Sparse binary form, first byte a version. Equal sketches have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + 3 * self.buckets.len());
        out.push(VERSION);
        varint::put(&mut out, self.buckets.len() as u64);
        let mut before = 0;
        for &(index, count) in &self.buckets {
            varint::put(&mut out, u64::from(index - before));
            varint::put_signed(&mut out, count);
            before = index;
        }
        out
    }

    /// Reads [`Sketch::encode`]'s form, with bounds on what it allocates.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let mut cursor = Cursor(bytes);
        if cursor.byte() != Some(VERSION) {
            return Err(Undecodable("unknown version"));
        }
        let cut_off = Undecodable("it is cut off");
        let len = cursor.number().ok_or_else(|| cut_off.clone())?;
        // Two bytes a bucket at least: a length that lies cannot make us allocate.
        if len > cursor.0.len() as u64 / 2 {
            return Err(cut_off);
        }
        let mut buckets = Vec::with_capacity(len as usize);
        let mut before = 0u64;
        for nth in 0..len {
            let step = cursor.number().ok_or_else(|| cut_off.clone())?;
            let count = cursor.signed().ok_or_else(|| cut_off.clone())?;
            let index = before.saturating_add(step);
            if index > u64::from(index_of(MS_MAX)) || count == 0 || (nth > 0 && step == 0) {
                return Err(Undecodable("a bucket is out of order or range"));
            }
            buckets.push((index as u16, count));
            before = index;
        }
        if cursor.is_at_end() { Ok(Self { buckets }) } else { Err(Undecodable("something follows it")) }
    }
}

/// The bucket of a latency: HdrHistogram's counter index for lowest value 1 and 3 digits.
fn index_of(ms: u64) -> u16 {
    // Each power of two above the first 2048 values is split into 1024 buckets.
    let power = (u64::BITS - (ms | (SUB_BUCKETS - 1)).leading_zeros()) - (HALF_BITS + 1);
    ((u64::from(power) << HALF_BITS) + (ms >> power)) as u16
}

/// The lowest value of a bucket, and how many values it holds.
fn range_of(index: u16) -> (u64, u64) {
    let index = u64::from(index);
    let power = (index >> HALF_BITS).saturating_sub(1);
    ((index - (power << HALF_BITS)) << power, 1 << power)
}

/// The stored sketch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sketch: {0}")]
pub struct Undecodable(pub &'static str);

#[cfg(test)]
mod tests;
