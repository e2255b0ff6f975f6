//! The laws of a layer, under a budget so small that most of what comes is dropped.

use proptest::prelude::*;

use super::*;

type Small = Layer<SpanId, Box<[u8]>, 200>;

/// Few ids and short facts of any length, so that ids conflict and the budget is exceeded.
fn pairs() -> impl Strategy<Value = Vec<(SpanId, Box<[u8]>)>> {
    let id = (0..30u64).prop_map(|id| SpanId(id.to_le_bytes()));
    let facts = prop::collection::vec(any::<u8>(), 0..40).prop_map(Vec::into_boxed_slice);
    prop::collection::vec((id, facts), 0..40)
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
    fn merging_is_a_union(a in pairs(), b in pairs(), c in pairs()) {
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
    fn encoded_is_decoded(pairs in pairs()) {
        let layer = Small::of(pairs);
        let mut bytes = Vec::new();
        layer.encode(&mut bytes);
        prop_assert_eq!(Small::decode(&mut Cursor(&bytes)), Ok(layer));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
        let mut cursor = Cursor(&bytes);
        if let Ok(layer) = Small::decode(&mut cursor) {
            let mut again = Vec::new();
            layer.encode(&mut again);
            prop_assert_eq!(Small::decode(&mut Cursor(&again)), Ok(layer));
        }
    }
}
