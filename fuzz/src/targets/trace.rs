//! Spans to states of traces, states to bytes and back, states to rows and rollups.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::rollup::{Contribution, Rollup, windows_over};
use emberd_model::row::{Row, row as row_of};
use emberd_model::trace::{STATE_BYTES_MAX, TraceState, fold};
use emberd_model::wire::{Limits, without_rejected};
use emberd_model::{TraceId, UnixNanos};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{halves, head};
use crate::seeds;

static PRICES: LazyLock<Prices> = LazyLock::new(|| {
    let table = toml::from_str(include_str!("../../../config/prices.toml")).expect("the shipped table is TOML");
    Prices::from_json(&table).expect("the shipped table is one")
});

/// The state of all spans of a request, as if they were of one trace: so that states become rich.
fn states(request: &[u8]) -> Vec<(TraceId, TraceState)> {
    let body = without_rejected(request, &Limits::default());
    fold(&[seeds::batch(body, 1)], &Reading::default()).into_iter().collect()
}

fn merged(states: &[&TraceState]) -> TraceState {
    let mut sum = TraceState::default();
    for state in states {
        sum.merge(state);
    }
    sum
}

/// Merging is commutative, associative and idempotent, and says truly whether it changed anything.
fn is_a_union(a: &TraceState, b: &TraceState, c: &TraceState) {
    let abc = merged(&[a, b, c]);
    assert_eq!(merged(&[c, b, a]), abc, "another order is another state");
    assert_eq!(merged(&[a, b, c, b, a, a]), abc, "repetition is another state");
    assert_eq!(merged(&[&merged(&[b, c]), a]), abc, "another grouping is another state");
    for state in [a, b, c] {
        let mut again = abc.clone();
        assert!(!again.merge(state), "a state that was merged before changes something");
    }
    survives_its_bytes(&abc);
}

fn survives_its_bytes(state: &TraceState) {
    let bytes = state.encode();
    assert!(bytes.len() <= STATE_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(TraceState::decode(&bytes).as_ref(), Ok(state));
}

/// Requests cut apart anywhere, between their spans, give the states of the whole; their states are unions.
pub(super) fn facts(input: &[u8]) {
    let ([at, ..], rest) = head::<4>(input);
    let (one, other) = halves(rest, at);
    let states: Vec<(TraceId, TraceState)> = [one, other].into_iter().flat_map(states).collect();
    states.iter().for_each(|(_, state)| survives_its_bytes(state));
    let nothing = TraceState::default();
    let nth = |nth: usize| states.get(nth).map_or(&nothing, |(_, state)| state);
    is_a_union(nth(0), nth(1), nth(2));

    // One batch of both is the union of the two.
    let limits = Limits::default();
    let both = [one, other].map(|request| seeds::batch(without_rejected(request, &limits), 1));
    let together = fold(&both, &Reading::default());
    for (trace, state) in &together {
        let parts: Vec<&TraceState> = states.iter().filter(|(id, _)| id == trace).map(|(_, state)| state).collect();
        assert_eq!(&merged(&parts), state, "trace {trace}");
    }
}

/// Bytes are a state that survives its own bytes and merges as states do, or an error.
pub(super) fn trace_state(input: &[u8]) {
    // Each byte may become an entry of some sixty.
    let bytes_max = 64 * input.len() + (64 << 10);
    if let Ok(state) = crate::memory::within(bytes_max, || TraceState::decode(input)) {
        survives_its_bytes(&state);
        let small = states(&SMALL);
        let other = small.first().map_or_else(TraceState::default, |(_, state)| state.clone());
        is_a_union(&state, &other, &TraceState::default());
    }
    if let Some((&at, rest)) = input.split_first() {
        let (one, other) = halves(rest, at);
        if let (Ok(one), Ok(other)) = (TraceState::decode(one), TraceState::decode(other)) {
            is_a_union(&one, &other, &one);
        }
    }
}

/// A request of one span, `{trace 1.., span 2.., name "x"}`.
static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let span = [&[0x0a, 16][..], &[1; 16], &[0x12, 8], &[2; 8], &[0x2a, 1, b'x']].concat();
    let wrapped = |number: u8, inner: &[u8]| [&[number << 3 | 2, inner.len() as u8][..], inner].concat();
    wrapped(1, &wrapped(2, &wrapped(2, &span)))
});

pub(super) fn row_seeds() -> Vec<Vec<u8>> {
    let headed = |kind: u8, inputs: Vec<Vec<u8>>| inputs.into_iter().map(move |input| [&[kind][..], &input].concat());
    headed(0, seeds::states()).chain(headed(1, seeds::requests())).collect()
}

/// Any state, of spans or decoded, gives a row that the databases take, the same one for the same state; and its rollup is
/// nothing again once it is taken away.
pub(super) fn row(input: &[u8]) {
    let ([kind], rest) = head::<1>(input);
    let states = match kind % 2 {
        0 => TraceState::decode(rest).map(|state| (TraceId([7; 16]), state)).into_iter().collect(),
        _ => states(rest),
    };
    for (trace, state) in states {
        let again = TraceState::decode(&state.encode()).expect("what was encoded is decoded");
        for rootless in [false, true] {
            let row = row_of(trace, &state, &PRICES, rootless);
            assert_eq!(row, row_of(trace, &again, &PRICES, rootless));
            if let Some(row) = row {
                can_be_stored(&row);
                adds_up(&row);
            }
        }
    }
}

fn can_be_stored(row: &Row) {
    let text = &row.metadata;
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect("metadata is a JSON object");
    let joined: Vec<String> =
        fields.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
    assert_eq!(text, &format!("{{{}}}", joined.join(",")), "its keys are not sorted, or one is there twice");
    assert!(!text.contains("\\u0000"), "a NUL in {text}");
    let texts = [row.prompt_ref.as_ref(), row.user_ref.as_ref(), Some(&row.model), row.error.as_ref()];
    assert!(texts.into_iter().flatten().all(|text| !text.contains('\0')), "a NUL in {row:?}");
    let tokens = [row.tokens.prompt, row.tokens.completion, row.tokens.total];
    assert!(row.execution_time_ms >= 0 && tokens.iter().all(|&count| count >= 0), "{row:?}");
    // Root and calls are kept in a quarter of a megabyte, and a text takes at most six times its bytes as JSON.
    assert!(text.len() < 6 * STATE_BYTES_MAX, "{} bytes of metadata", text.len());
}

fn adds_up(row: &Row) {
    let contribution = Contribution::of(row);
    let mut rollup = Rollup::default();
    rollup.add(&contribution, 1);
    assert_eq!(rollup.traces(), 1);
    assert!(rollup.metrics().iter().all(|(_, value)| value.is_finite() && *value >= 0.0), "{:?}", rollup.metrics());
    rollup.add(&contribution, -1);
    assert!(rollup.is_empty(), "{rollup:?}");
    let windows = windows_over(contribution.hour, UnixNanos(1_795_219_200_000_000_000));
    assert!(windows.len() <= 39, "{} windows", windows.len());
    assert!(windows.iter().all(|(_, start, end)| (*start..*end).contains(&contribution.hour)), "{windows:?}");
}
