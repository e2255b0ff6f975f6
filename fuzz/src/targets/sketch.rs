//! Sketches: their bytes, their sums, and HdrHistogram's word on the same values.

use emberd_model::sketch::{MS_MAX, Sketch};
use hdrhistogram::Histogram;

use super::{halves, head};
use crate::memory;

const QUANTILES: [f64; 7] = [0.0, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0];

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let of = |values: &[(u64, i64)]| {
        let mut sketch = Sketch::default();
        values.iter().for_each(|&(ms, count)| sketch.add(ms, count));
        sketch.encode()
    };
    let some = of(&[(1, 1), (250, 3), (2_049, -2), (MS_MAX, i64::MAX)]);
    vec![of(&[]), some.clone(), [&[128][..], &some, &some].concat()]
}

/// Bytes are a sketch that survives its own bytes, in bounded memory, or an error; two sketches add up in either order.
pub(super) fn sketch(input: &[u8]) {
    if let Ok(sketch) = memory::within(32 * input.len() + 4096, || Sketch::decode(input)) {
        assert_eq!(Sketch::decode(&sketch.encode()).as_ref(), Ok(&sketch));
        let quantiles = QUANTILES.map(|quantile| sketch.quantile(quantile));
        assert!(quantiles.iter().all(|found| found.is_some() == (sketch.count() > 0)));
    }
    let Some((&at, rest)) = input.split_first() else { return };
    let (one, other) = halves(rest, at);
    let (Ok(one), Ok(other)) = (Sketch::decode(one), Sketch::decode(other)) else { return };
    let (mut sum, mut other_way) = (one.clone(), other.clone());
    sum.merge(&other);
    other_way.merge(&one);
    assert_eq!(sum, other_way);
    assert_eq!(sum.count(), one.count().wrapping_add(other.count()));
    assert_eq!(Sketch::decode(&sum.encode()), Ok(sum));
}

/// Adding, taking away and merging, in any order, leave the sketch of what remains; it says what HdrHistogram says.
pub(super) fn sketch_sums(input: &[u8]) {
    let ([at], rest) = head::<1>(input);
    let latencies: Vec<(u64, u32)> = rest.chunks(5).map(latency).collect();
    let cut = latencies.len() * usize::from(at) / 256;
    let of = |latencies: &[(u64, u32)], sign: i64| {
        let mut sketch = Sketch::default();
        latencies.iter().for_each(|&(ms, count)| sketch.add(ms, sign * i64::from(count)));
        sketch
    };
    let (whole, kept) = (of(&latencies, 1), of(&latencies[..cut], 1));
    let mut left = whole.clone();
    left.merge(&of(&latencies[cut..], -1));
    assert_eq!(left, kept, "what was taken away is still seen");
    let mut nothing = of(&latencies, -1);
    nothing.merge(&whole);
    assert!(nothing.is_empty(), "{nothing:?}");

    let mut histogram = Histogram::<u64>::new_with_bounds(1, MS_MAX, 3).expect("these are bounds");
    for &(ms, count) in &latencies {
        histogram.record_n(ms.min(MS_MAX), u64::from(count)).expect("it is within the bounds");
    }
    assert_eq!(whole.count() as u64, histogram.len());
    for quantile in QUANTILES {
        let theirs = (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile));
        assert_eq!(whole.quantile(quantile), theirs, "at {quantile}");
    }
}

/// A latency of any size and how often it came, at most a few thousand times.
fn latency(bytes: &[u8]) -> (u64, u32) {
    let ([low, high, power, count, more], _) = head::<5>(bytes);
    let ms = u64::from(u16::from_le_bytes([low, high])) << (power % 48);
    (ms, u32::from(u16::from_le_bytes([count, more % 16])))
}
