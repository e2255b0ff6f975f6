//! What rollups and windows promise.

use proptest::prelude::*;

use super::*;

fn contribution() -> impl Strategy<Value = Contribution> {
    let status = prop_oneof![Just(Status::Success), Just(Status::Error), Just(Status::Timeout)];
    (0..600_000i64, 0..4_000_000u64, status, 0..=CONTRIBUTION_MAX, 0..=CONTRIBUTION_MAX, 0..100_000u64).prop_map(
        |(hour, latency_ms, status, prompt, completion, llm_time_ms)| Contribution {
            hour,
            latency_ms,
            status,
            tokens: Tokens { prompt, completion, total: prompt + completion },
            llm_time_ms,
        },
    )
}

fn rollup_of(contributions: &[Contribution]) -> Rollup {
    let mut rollup = Rollup::default();
    contributions.iter().for_each(|contribution| rollup.add(contribution, 1));
    rollup
}

proptest! {
    #[test]
    fn any_order_of_adding_and_taking_away_is_one(
        kept in prop::collection::vec(contribution(), 0..30),
        gone in prop::collection::vec(contribution(), 0..30),
    ) {
        let mut owing = Rollup::default();
        gone.iter().for_each(|contribution| owing.add(contribution, -1));
        let mut all = rollup_of(&gone);
        all.merge(&rollup_of(&kept));
        owing.merge(&all);
        prop_assert_eq!(&owing, &rollup_of(&kept));
        prop_assert_eq!(owing.is_empty(), kept.is_empty());
        prop_assert_eq!(owing.traces(), kept.len() as i64);
    }

    /// Each window holds the trace, has its length, and none of 7 or 30 days ends after the later of today and its own day.
    #[test]
    fn windows_hold_their_trace(hour in 0..5_200_000i64, now: u64) {
        let windows = windows_over(hour, UnixNanos(now));
        prop_assert!(windows.len() <= 39);
        let close = (((now / NANOS_PER_HOUR) as i64).max(hour) / 24 + 1) * 24;
        for &(window, start, end) in &windows {
            prop_assert!(start <= hour && hour < end && end - start == window.hours());
            prop_assert!(end <= close || end <= (hour / 24 + 1) * 24);
            prop_assert!(window == Window::Hour || end % 24 == 0);
        }
        let mut distinct = windows.clone();
        distinct.dedup();
        prop_assert_eq!(distinct, windows);
    }
}

#[test]
fn a_late_trace_touches_the_windows_over_it() {
    let now = UnixNanos(100 * 24 * NANOS_PER_HOUR + 5);
    // Three days ago: the weeks that closed on its day and the two after it, and the one that closes tonight.
    let windows = windows_over(97 * 24 + 13, now);
    let ends = |window| windows.iter().filter(|w| w.0 == window).map(|w| w.2 / 24 - 1).collect::<Vec<_>>();
    assert_eq!(ends(Window::Week), [97, 98, 99, 100]);
    assert_eq!(ends(Window::Month), [97, 98, 99, 100]);
    assert_eq!(windows[..2], [(Window::Hour, 97 * 24 + 13, 97 * 24 + 14), (Window::Day, 97 * 24, 98 * 24)]);
    // Long ago: all seven and all thirty, and none of today's.
    let old = windows_over(10 * 24, now);
    assert_eq!(old.iter().filter(|w| w.0 == Window::Week).count(), 7);
    assert_eq!(old.iter().filter(|w| w.0 == Window::Month).count(), 30);
    assert_eq!(old.iter().map(|w| w.2).max(), Some(40 * 24));
    // From the future: the one that closes on its own day.
    assert_eq!(windows_over(200 * 24, now).len(), 4);
}

#[test]
fn metrics_are_the_tables_six() {
    let of = |latency_ms, status, completion, llm_time_ms| Contribution {
        hour: 0,
        latency_ms,
        status,
        tokens: Tokens { prompt: 1, completion, total: completion + 1 },
        llm_time_ms,
    };
    let rollup = rollup_of(&[of(100, Status::Success, 30, 1_000), of(300, Status::Timeout, 0, 500)]);
    assert_eq!(
        rollup.metrics(),
        [
            ("latency_p50", 100.0),
            ("latency_p90", 300.0),
            ("latency_p99", 300.0),
            ("tokens_per_second", 20.0),
            ("success_rate", 0.5),
            ("error_rate", 0.5)
        ]
    );
    assert_eq!(rollup_of(&[of(1, Status::Success, 5, 0)]).metrics().iter().find(|m| m.0 == "tokens_per_second"), None);
    assert_eq!(Rollup::default().metrics(), []);
}
