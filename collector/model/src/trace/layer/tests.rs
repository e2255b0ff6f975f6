//! The laws of a layer, under a budget so small that most of what comes is dropped.

use proptest::prelude::*;

use super::*;

type Small = Layer<SpanId, Box<[u8]>, 200>;

/// Few ids and short facts of any length, so that ids conflict and the budget is exceeded.
fn entries() -> impl Strategy<Value = Vec<Entry<SpanId, Box<[u8]>>>> {
    let id = (0..30u64).prop_map(|id| SpanId(id.to_le_bytes()));
    let facts = prop::collection::vec(any::<u8>(), 0..40).prop_map(Vec::into_boxed_slice);
    prop::collection::vec((id, facts).prop_map(|(id, facts)| Entry::new(id, facts)), 0..40)
}

fn encoded(layer: &Small) -> Vec<u8> {
    let mut bytes = Vec::new();
    layer.encode_head(&mut bytes);
    for entry in layer.entries() {
        bytes.extend_from_slice(&entry.key.0);
        varint::put_bytes(&mut bytes, &entry.value);
    }
    bytes
}

fn decoded(bytes: &[u8]) -> Result<Small, Undecodable> {
    let pair = |cursor: &mut Cursor<'_>| Some((SpanId(cursor.array()?), cursor.bytes()?.into()));
    Small::decode_with(&mut Cursor(bytes), |cursor, len| (0..len).map(|_| pair(cursor)).collect())
}

fn merged(one: &Small, other: &Small) -> Small {
    let mut merged = one.clone();
    let changed = merged.merge(other);
    assert_eq!(changed, merged != *one, "merge says whether it changed anything");
    merged
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Whatever the order, grouping and repetition, and wherever the cut fell in between: the layer of all pairs.
    #[test]
    fn merging_is_a_union(a in entries(), b in entries(), c in entries()) {
        let whole = Small::of([a.clone(), b.clone(), c.clone()].concat());
        let (a, b, c) = (Small::of(a), Small::of(b), Small::of(c));
        prop_assert_eq!(&merged(&merged(&a, &b), &c), &whole);
        prop_assert_eq!(&merged(&c, &merged(&b, &a)), &whole);
        prop_assert_eq!(&merged(&merged(&b, &c), &merged(&a, &b)), &whole);
        prop_assert_eq!(&merged(&whole, &b), &whole);
        let bytes: usize = whole.entries().iter().map(Entry::bytes).sum();
        prop_assert!(bytes <= 200);
        prop_assert!(whole.is_capped() || whole.entries().len() <= 30);
    }

    #[test]
    fn encoded_is_decoded(entries in entries()) {
        let layer = Small::of(entries);
        prop_assert_eq!(decoded(&encoded(&layer)), Ok(layer));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
        if let Ok(layer) = decoded(&bytes) {
            prop_assert_eq!(decoded(&encoded(&layer)), Ok(layer));
        }
    }
}
