use std::collections::BTreeSet;

use emberd_model::{Flags, UnixNanos};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::*;
use crate::forwarder::tests::{attribute, request};

const SECOND: u64 = 1_000_000_000;

fn config() -> Config {
    Config {
        pressed_at: 0.0,
        pressed_after: Duration::ZERO,
        errors: false,
        slow: None,
        prompts: Vec::new(),
        share: 0.0,
        traces_per_second: None,
        reading: Reading::default(),
    }
}

/// The span of a trace, both made from their numbers.
fn span(trace: u64, number: u64) -> Span {
    Span {
        trace_id: u128::from(trace + 1).to_be_bytes().to_vec(),
        span_id: (trace * 100 + number + 1).to_be_bytes().to_vec(),
        parent_span_id: if number == 0 { Vec::new() } else { (trace * 100 + 1).to_be_bytes().to_vec() },
        start_time_unix_nano: SECOND,
        end_time_unix_nano: 2 * SECOND,
        ..Span::default()
    }
}

fn failed(span: Span) -> Span {
    Span { status: Some(Status { code: STATUS_ERROR, ..Status::default() }), ..span }
}

fn batch(second: u64, spans: Vec<Span>) -> Batch {
    Batch {
        offset: Offset(0),
        spans: spans.len() as u32,
        received_at: UnixNanos(second * SECOND),
        key: 0,
        flags: Flags::default(),
        body: request(spans),
    }
}

/// Which spans of a batch are sent, by their places, after all of them were noted.
fn sent(chooser: &mut Chooser, batches: &[Batch]) -> Vec<BTreeSet<u64>> {
    batches.iter().for_each(|batch| chooser.note(batch));
    let sent = batches.iter().map(|batch| {
        let chosen = chooser.choose(batch, &Runs::of(batch));
        let sent: BTreeSet<u64> = chosen.sent.into_iter().flatten().collect();
        assert_eq!(sent.len() as i64 + chosen.shed.spans(), i64::from(batch.spans), "a span that nobody speaks of");
        sent
    });
    let sent = sent.collect();
    assert!(chooser.signs.is_empty(), "signs of what was decided");
    sent
}

/// A trace is sent whole for one span that speaks for it, though that comes later, and although the first spans said nothing.
#[test]
fn one_span_speaks_for_all_of_its_trace() {
    let slow = Span { end_time_unix_nano: 20 * SECOND, ..span(3, 1) };
    let named = Span { attributes: vec![attribute("prompt.id", "greeting")], ..span(4, 1) };
    let batches = [
        batch(1, vec![span(1, 0), span(2, 0), span(3, 0), span(4, 0), span(5, 0)]),
        batch(2, vec![failed(span(2, 1)), slow, named, span(5, 1)]),
    ];
    let cases: [(Config, [&[u64]; 2]); 4] = [
        (Config { errors: true, ..config() }, [&[1], &[0]]),
        (Config { slow: Some(Duration::from_secs(10)), ..config() }, [&[2], &[1]]),
        (Config { prompts: vec!["greeting".into()], ..config() }, [&[3], &[2]]),
        (config(), [&[], &[]]),
    ];
    for (config, expected) in cases {
        let found = sent(&mut Chooser::new(config.clone(), &[]), &batches);
        assert_eq!(found, expected.map(|of_batch| of_batch.iter().copied().collect()), "{config:?}");
    }
}

/// What was decided stands, also for spans that come long after and would decide otherwise, and over a restart.
#[test]
fn later_spans_follow_what_was_decided() {
    let config = Config { errors: true, ..config() };
    let mut chooser = Chooser::new(config.clone(), &[]);
    assert_eq!(sent(&mut chooser, &[batch(1, vec![span(1, 0), failed(span(2, 0))])]), [[1].into()]);
    let late = [batch(9, vec![failed(span(1, 1)), span(2, 1)])];
    let steps = vec![chooser.take_fresh()];
    for stored in [steps.clone(), vec![chooser.stored()], [vec![chooser.stored()], steps].concat()] {
        let mut again = Chooser::new(config.clone(), &stored);
        assert_eq!(sent(&mut again, &late), [[1].into()]);
        assert_eq!(again.take_fresh(), [0_u8; 0], "what is known was decided anew");
    }
    assert_eq!(sent(&mut chooser, &late), [[1].into()]);
    let given = chooser.take_fresh();
    chooser.give_back(&given);
    assert_eq!(chooser.take_fresh(), given);
}

/// The share is a share of the traces, the same for all who ask, and the larger one holds the smaller one's.
#[test]
fn a_share_is_the_same_everywhere() {
    let batches: Vec<Batch> = (0..4_000).map(|n| batch(n, vec![span(n, 0), span(n, 1)])).collect();
    let chosen = |share| -> BTreeSet<usize> {
        let found = sent(&mut Chooser::new(Config { share, ..config() }, &[]), &batches);
        assert!(found.iter().all(|of_batch| of_batch.is_empty() || of_batch.len() == 2), "half a trace");
        found.iter().enumerate().filter(|(_, of_batch)| !of_batch.is_empty()).map(|(n, _)| n).collect()
    };
    let (small, large) = (chosen(0.1), chosen(0.4));
    assert!(
        (340..460).contains(&small.len()) && (1_480..1_720).contains(&large.len()),
        "{} {}",
        small.len(),
        large.len()
    );
    assert!(small.is_subset(&large));
    assert_eq!((chosen(0.0).len(), chosen(1.0).len()), (0, 4_000));
}

/// No more traces than asked for each second of receiving, and those whole.
#[test]
fn a_second_holds_so_many_traces() {
    let config = Config { share: 1.0, traces_per_second: Some(3), ..config() };
    let batches: Vec<Batch> = (0..40).map(|n| batch(n / 10, vec![span(n, 0), span(n.saturating_sub(1), 2)])).collect();
    let mut chooser = Chooser::new(config, &[]);
    let found = sent(&mut chooser, &batches);
    let traces = |second: usize| (0..10).filter(|n| found[second * 10 + n].contains(&0)).count();
    assert_eq!([0, 1, 2, 3].map(traces), [3; 4]);
    for n in 1..40 {
        assert_eq!(found[n].contains(&1), found[n - 1].contains(&0), "half a trace: {n}");
    }
}

/// Everything is sent until the budget's part is taken, and again when there is room; what was begun whole ends whole.
#[test]
fn everything_is_sent_until_the_budget_is_pressed() {
    let mut chooser = Chooser::new(Config { pressed_at: 0.5, ..config() }, &[]);
    let mut step = |taken: f64, trace: u64| {
        chooser.press(taken, Offset(0), Instant::now());
        let [found] = &sent(&mut chooser, &[batch(1, vec![span(trace, 0), span(0, trace)])])[..] else { panic!() };
        assert!(found.contains(&1), "the first trace is no longer whole");
        found.contains(&0)
    };
    let steps = [(0.0, true), (0.49, true), (0.5, false), (0.45, false), (0.39, true), (0.45, true), (0.6, false)];
    for (n, (taken, is_sent)) in (0..).zip(steps) {
        assert_eq!(step(taken, n), is_sent || n == 0, "{taken}");
    }
}

/// An endpoint that was away gets all that it missed, if it then catches up; one that takes spans for so long and does not, is pressed.
#[test]
fn who_was_away_and_catches_up_is_not_pressed() {
    let minute = Duration::from_secs(60);
    let pressed = |steps: &[(f64, u64)]| {
        let mut chooser = Chooser::new(Config { pressed_at: 0.5, pressed_after: minute, ..config() }, &[]);
        let begun = Instant::now();
        let mut pressed_at = None;
        for (n, (taken, cursor)) in (0..).zip(steps) {
            chooser.press(*taken, Offset(*cursor), begun + n * minute / 6);
            pressed_at = pressed_at.or(chooser.is_pressed().then_some(n));
        }
        pressed_at
    };
    let away: Vec<_> = (0..20).map(|_| (1.0, 7)).collect();
    assert_eq!(pressed(&away), None);
    let back: Vec<_> = (0..9).map(|n| (1.0 - f64::from(n) * 0.05, u64::from(n as u32 + 8))).collect();
    assert_eq!(pressed(&[away.clone(), back].concat()), None);
    let slow: Vec<_> = (0..9).map(|n| (0.9, n + 8)).collect();
    assert_eq!(pressed(&slow), Some(6));
    assert_eq!(pressed(&[away, slow].concat()), Some(26));
    let now_and_then: Vec<_> = (0..30).map(|n| (if n % 5 == 4 { 0.4 } else { 0.6 }, n)).collect();
    assert_eq!(pressed(&now_and_then), None);
}

/// Far from the bound nobody looks at spans; what was left out is remembered for an hour all the same, and then no more.
#[test]
fn far_from_the_bound_nothing_is_looked_at() {
    let mut chooser = Chooser::new(Config { pressed_at: 0.5, ..config() }, &[]);
    let begun = Instant::now();
    let press = |chooser: &mut Chooser, taken, minutes: u64| {
        chooser.press(taken, Offset(0), begun + Duration::from_secs(60 * minutes));
        (chooser.is_idle(), chooser.is_pressed())
    };
    assert_eq!(press(&mut chooser, 0.1, 0), (true, false));
    assert_eq!(press(&mut chooser, 0.3, 1), (false, false));
    assert_eq!(press(&mut chooser, 0.6, 2), (false, true));
    assert_eq!(sent(&mut chooser, &[batch(1, vec![span(1, 0)])]), [BTreeSet::new()]);
    assert_eq!(press(&mut chooser, 0.1, 3), (false, false));
    assert_eq!(sent(&mut chooser, &[batch(1, vec![span(1, 1), span(2, 0)])]), [[1].into()]);
    assert_eq!(press(&mut chooser, 0.1, 70), (true, false));
    assert!(chooser.stored().is_empty());
}
