//! What a sketch promises, against the hdrhistogram crate and against sorted lists.

use hdrhistogram::Histogram;
use proptest::prelude::*;

use super::*;

const QUANTILES: [f64; 9] = [0.0, 0.001, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0];

fn sketch_of(values: &[u64]) -> Sketch {
    let mut sketch = Sketch::default();
    values.iter().for_each(|&ms| sketch.add(ms, 1));
    sketch
}

fn histogram_of(values: &[u64]) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, MS_MAX, 3).unwrap();
    values.iter().for_each(|&ms| histogram.record(ms.min(MS_MAX)).unwrap());
    histogram
}

/// Latencies of every size, with many on the edges of buckets.
fn latency() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..3_000u64,
        0..MS_MAX,
        (0..22u32, 0..3u64).prop_map(|(power, off)| (1u64 << power).saturating_sub(1) + off),
        Just(MS_MAX),
        any::<u64>(),
    ]
}

proptest! {
    #[test]
    fn quantiles_are_those_of_hdrhistogram(values in prop::collection::vec(latency(), 1..400)) {
        let (sketch, histogram) = (sketch_of(&values), histogram_of(&values));
        prop_assert_eq!(sketch.count(), values.len() as i64);
        for quantile in QUANTILES {
            prop_assert_eq!(sketch.quantile(quantile), Some(histogram.value_at_quantile(quantile)), "at {}", quantile);
        }
    }

    /// Adding, taking away and merging, in any order, leave the sketch of what remains.
    #[test]
    fn taking_away_is_exact(kept in prop::collection::vec(latency(), 0..100), gone in prop::collection::vec(latency(), 0..100)) {
        let mut here = Sketch::default();
        gone.iter().for_each(|&ms| here.add(ms, -1));
        let mut there = sketch_of(&gone);
        there.merge(&sketch_of(&kept));
        let mut other_way = there.clone();
        other_way.merge(&here);
        here.merge(&there);
        prop_assert_eq!(&here, &sketch_of(&kept));
        prop_assert_eq!(here, other_way);
    }

    #[test]
    fn encoded_is_decoded(values in prop::collection::vec((latency(), any::<i64>()), 0..200)) {
        let mut sketch = Sketch::default();
        values.iter().for_each(|&(ms, count)| sketch.add(ms, count));
        let bytes = sketch.encode();
        prop_assert!(bytes.len() <= 3 + 13 * values.len());
        prop_assert_eq!(Sketch::decode(&bytes), Ok(sketch));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes: Vec<u8>, valid in any::<bool>()) {
        let mut bytes = bytes;
        if let (true, Some(first)) = (valid, bytes.first_mut()) {
            *first = VERSION;
        }
        if let Ok(sketch) = Sketch::decode(&bytes) {
            prop_assert_eq!(Sketch::decode(&sketch.encode()), Ok(sketch.clone()));
            for quantile in QUANTILES {
                prop_assert_eq!(sketch.quantile(quantile).is_some(), sketch.count() > 0);
            }
        }
    }
}

#[test]
fn every_bucket_holds_the_values_that_it_says() {
    let histogram = Histogram::<u64>::new_with_bounds(1, MS_MAX, 3).unwrap();
    for ms in (0..10_000).chain((10_000..MS_MAX).step_by(97)).chain([MS_MAX]) {
        let (lowest, width) = range_of(index_of(ms));
        assert!((lowest..lowest + width).contains(&ms), "{ms} is not in {lowest}+{width}");
        assert_eq!(width, histogram.equivalent_range(ms), "at {ms}");
    }
}

#[test]
fn a_million_latencies_are_within_a_thousandth() {
    // A long-tailed mix, as answers of models are: most around a second, some of minutes.
    let mut seed = 7u64;
    let mut uniform = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut values: Vec<u64> = (0..1_000_000)
        .map(|_| {
            let bell = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            (800.0 * (1.1 * bell).exp()).round().clamp(1.0, MS_MAX as f64) as u64
        })
        .collect();
    let sketch = sketch_of(&values);
    values.sort_unstable();
    for quantile in [0.5, 0.9, 0.95, 0.99] {
        let exact = values[(quantile * values.len() as f64).ceil() as usize - 1] as f64;
        let said = sketch.quantile(quantile).unwrap() as f64;
        assert!((said - exact).abs() <= exact / 1000.0, "p{quantile}: {said}, exactly {exact}");
    }
    assert_eq!(sketch.quantile(0.99), Some(histogram_of(&values).value_at_quantile(0.99)));
}

#[test]
fn an_empty_sketch_has_no_quantile() {
    assert_eq!(Sketch::default().quantile(0.5), None);
    let mut owing = Sketch::default();
    owing.add(5, -1);
    assert_eq!(owing.quantile(0.5), None);
    assert!(!owing.is_empty());
}

/// Counts and values at the edge of what their types hold neither panic nor are refused when they are written: the crate
/// everybody uses does both (HdrHistogram_rust#135: `+=` panics; #41: counts beyond 63 bits cannot be serialised).
#[test]
fn hdrhistogram_135_counts_at_the_edge_do_no_harm() {
    let mut sketch = Sketch::default();
    for count in [i64::MAX, 1, i64::MAX, i64::MIN, -1, 7] {
        for ms in [0, 1, MS_MAX, MS_MAX + 1, u64::MAX] {
            sketch.add(ms, count);
            let copy = Sketch::decode(&sketch.encode());
            assert_eq!(copy.as_ref(), Ok(&sketch));
            sketch.merge(&copy.unwrap());
            for quantile in QUANTILES {
                let _ = sketch.quantile(quantile);
            }
        }
    }
    let mut honest = sketch_of(&[u64::MAX, 3]);
    honest.merge(&sketch_of(&[5]));
    assert_eq!(honest.quantile(0.5), Some(5));
    assert_eq!(honest.count(), 3);
}

/// The bytes of version 1, as databases hold them: they are read for ever, and what is written is still the same.
#[test]
fn version_1_is_read_and_written_for_ever() {
    const BYTES: [u8; 6] = [1, 2, 5, 6, 2, 2];
    let sketch = Sketch::decode(&BYTES).unwrap();
    assert_eq!(sketch, sketch_of(&[5, 5, 5, 7]));
    assert_eq!((sketch.count(), sketch.quantile(0.5), sketch.quantile(1.0)), (4, Some(5), Some(7)));
    assert_eq!(sketch.encode(), BYTES);
}
