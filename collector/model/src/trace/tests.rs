//! The state of a trace under everything that can happen on its way.

use opentelemetry_proto::tonic::common::v1::any_value::Value as V;
use proptest::prelude::*;

use super::*;
use crate::facts::sample::*;
use crate::row::row;

/// Traces as they come and as they should not: wrappers in wrappers, doubles, circles, missing parents, several roots, one id
/// with several contents.
fn any_span() -> impl Strategy<Value = Sample> {
    let ids = (1..12u64, 0..14u64);
    let times = (0..40u64, 0..60u64);
    let what = prop::sample::select(vec![
        "plain", "call", "call", "failed", "slow", "named", "session", "odd", "bare", "twin",
    ]);
    (ids, times, what, 0..3u64).prop_map(|((id, parent), (start, end), what, variant)| {
        let plain = span(id).under(parent).between(start, end).scope(["a", "b", "c"][variant as usize]);
        let call = || plain.clone().with("openinference.span.kind", text("LLM")).with("llm.model_name", text("gpt-4o"));
        let word = ["x", "y", "z\0"][variant as usize];
        match what {
            "call" => call().tokens(variant as i64, 5).with("input.value", text(word)).with("output.value", text(word)),
            "failed" => call().failed(word),
            "slow" => call().failed("").with("error.type", text("TimeoutError")),
            "named" => plain.with("prompt.id", text(word)).with("tag.tags", texts(&[word])),
            "session" => plain.with("session.id", text(word)).with("metadata", text("{\"a\": [1, 2]}")),
            "odd" => call().tokens(-1, i64::MAX).with("llm.token_count.total", V::DoubleValue(f64::NAN)),
            "bare" => call().without("llm.").with("gen_ai.response.id", text(word)),
            "twin" => call().tokens(10, 5).between(10, 20).with("gen_ai.response.id", text("one")),
            _ => plain,
        }
    })
}

/// Spans in some order, some of them twice, cut into requests.
fn requests(spans: Vec<Sample>) -> impl Strategy<Value = (Vec<Sample>, Vec<Vec<Sample>>)> {
    let repeated = prop::collection::vec(0..spans.len(), 0..=spans.len());
    let cuts = prop::collection::vec(1..5usize, 1..40);
    (Just(spans), repeated, cuts)
        .prop_flat_map(|(spans, repeated, cuts)| {
            let mut sent = spans.clone();
            sent.extend(repeated.into_iter().map(|at| spans[at].clone()));
            (Just(spans), Just(sent).prop_shuffle(), Just(cuts))
        })
        .prop_map(|(spans, mut sent, cuts)| {
            let mut requests = Vec::new();
            for cut in cuts.into_iter().cycle() {
                if sent.is_empty() {
                    break;
                }
                let rest = sent.split_off(cut.min(sent.len()));
                requests.push(std::mem::replace(&mut sent, rest));
            }
            (spans, requests)
        })
}

fn merged(states: impl IntoIterator<Item = TraceState>) -> TraceState {
    let mut all = TraceState::default();
    for state in states {
        let before = all.clone();
        let changed = all.merge(&state);
        assert_eq!(changed, all != before, "merge says whether it changed anything");
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Any permutation, split, merge and repetition of the same spans gives one state and one row.
    #[test]
    fn order_and_repetition_do_not_matter(
        (spans, requests) in prop::collection::vec(any_span(), 1..25).prop_flat_map(requests),
    ) {
        let whole = state(&spans);
        let parts: Vec<TraceState> = requests.iter().map(|request| state(request)).collect();
        prop_assert_eq!(&merged(parts.clone()), &whole);
        prop_assert_eq!(&merged(parts.clone().into_iter().rev()), &whole);
        // As it is when states are stored between requests, and two recorders work on halves.
        let (left, right) = parts.split_at(parts.len() / 2);
        let stored = |half: &[TraceState]| TraceState::decode(&merged(half.to_vec()).encode()).unwrap();
        prop_assert_eq!(&merged([stored(right), stored(left), stored(left)]), &whole);
        // One recorder folds several requests at once.
        let batches: Vec<_> = requests.iter().map(|request| batch(request)).collect();
        prop_assert_eq!(&fold(&batches, &Reading::default()).remove(&TRACE).unwrap(), &whole);

        for rootless in [false, true] {
            let row = row(TRACE, &whole, &prices(), rootless);
            prop_assert_eq!(row.is_some(), whole.deserves_row() && (rootless || whole.has_root()));
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(spans in prop::collection::vec(any_span(), 1..8), at: usize, byte: u8, cut: usize) {
        let mut bytes = state(&spans).encode();
        let len = bytes.len();
        bytes[at % len] = byte;
        bytes.truncate(len - cut % 3);
        if let Ok(state) = TraceState::decode(&bytes) {
            let _ = row(TRACE, &state, &prices(), true);
            prop_assert_eq!(merged([TraceState::decode(&state.encode()).unwrap()]).spans(), state.spans());
        }
    }
}

/// A trace far larger than its state may be: bounded, marked, its root and a fair share of its calls kept, and the same
/// whatever the order.
#[test]
fn a_huge_trace_is_cut_the_same_in_any_order() {
    let long = "x".repeat(5_000);
    let root = span(1).with("input.value", text(&long)).with("metadata", text(&format!("{{\"a\": \"{long}\"}}")));
    let calls = (2..1_500).map(|id| call(id, 1).with("gen_ai.response.id", text(&format!("{id}{}", &long[..200]))));
    let named = (2_000..2_100)
        .map(|id| span(id).under(1).with("metadata", text(&format!("{{\"n\": {id}, \"a\": \"{long}\"}}"))));
    let plain = (3_000..9_000).map(|id| span(id).under(id - 1));
    let mut spans: Vec<Sample> = std::iter::once(root).chain(calls).chain(named).chain(plain).collect();
    let whole = state(&spans);
    assert!(whole.encode().len() <= STATE_BYTES_MAX, "{}", whole.encode().len());
    assert_eq!(TraceState::decode(&whole.encode()).as_ref(), Ok(&whole));
    assert_eq!(whole.spans(), SPANS_MAX);
    assert!(whole.links.is_capped() && whole.calls.is_capped() && !whole.roots.is_capped());
    let row_of_whole = row(TRACE, &whole, &prices(), false).unwrap();
    assert_eq!(read(&row_of_whole)["marks"], serde_json::json!(["truncated", "capped"]));
    assert_eq!(read(&row_of_whole)["input"].as_str().unwrap().len(), 4_096);
    assert!(read(&row_of_whole)["llm_calls"].as_u64().unwrap() > 200);

    spans.reverse();
    let parts: Vec<TraceState> = spans.chunks(700).map(state).collect();
    assert_eq!(merged(parts.clone()), whole);
    assert_eq!(merged(parts.into_iter().rev()), whole);
}

#[test]
fn contradictions_are_marked_and_decided() {
    let one = span(1).with("prompt.id", text("a"));
    let other = span(1).with("prompt.id", text("bb"));
    let both = state(&[one.clone(), other.clone()]);
    assert_eq!(both, state(&[other, one.clone()]));
    let row = row_of(&[one.clone(), span(1).with("prompt.id", text("bb"))]);
    assert_eq!((row.prompt_ref.as_deref(), &read(&row)["marks"]), (Some("bb"), &serde_json::json!(["conflict"])));
    assert_eq!(read(&row_of(&[one.clone(), one])).get("marks"), None);
}

/// A stored text that was damaged into one with a NUL does not come into a row, which PostgreSQL would refuse for ever.
#[test]
fn a_nul_in_a_stored_text_is_no_text() {
    let spans = [span(1).with("session.id", text("s-marked")), call(2, 1).with("input.value", text("i-marked"))];
    let sound = state(&spans).encode();
    for marked in [&b"s-marked"[..], b"i-marked"] {
        let at = sound.windows(marked.len()).position(|bytes| bytes == marked).unwrap();
        let mut bytes = sound.clone();
        bytes[at] = 0;
        if let Ok(state) = TraceState::decode(&bytes)
            && let Some(row) = row(TRACE, &state, &prices(), true)
        {
            assert!(!format!("{row:?}").contains("\\0") && !format!("{row:?}").contains("\\u{0}"), "{row:?}");
        }
    }
}

#[test]
fn another_version_is_not_read() {
    assert_eq!(TraceState::decode(&[]), Err(Undecodable("unknown version")));
    let mut bytes = state(&[span(1)]).encode();
    bytes.push(0);
    assert_eq!(TraceState::decode(&bytes), Err(Undecodable("something follows it")));
    bytes[0] = 9;
    assert_eq!(TraceState::decode(&bytes), Err(Undecodable("unknown version")));
}
