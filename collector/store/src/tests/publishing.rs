//! Metrics and summaries follow the rollups, in every window and over midnight.

use emberd_model::UnixNanos;
use emberd_model::rollup::Window;

use super::harness::{Db, NOW};
use super::on_both;
use super::oracle::{check, check_at};
use super::spans::{call, root, trace};
use crate::Moment;
use crate::library::{MetricFilter, UNASSIGNED};

on_both!(
    metrics_agree_with_the_rows_in_every_window,
    a_metric_without_a_value_goes,
    a_new_day_moves_the_windows_of_quiet_prompts,
    much_that_is_dirty_is_published_piece_by_piece,
    clocks_of_1970_and_2554_are_published,
);

const HOUR_MS: u64 = 3_600_000;
const DAY_NANOS: u64 = 24 * HOUR_MS * 1_000_000;

async fn metrics_agree_with_the_rows_in_every_window(mut db: Db) {
    let prompt = db.prompt("faq").await;
    for number in 0..60 {
        let [root, call] = trace(number, number * number * HOUR_MS / 5, 1 + number * 37 % 5_000);
        let name = if number % 3 == 0 { "faq" } else { "unknown" };
        let root = if number % 7 == 0 { root.failed() } else { root };
        db.record(&[root.of_prompt(name), call]).await;
    }
    db.publish().await;
    check(&db).await;
    let metrics = |filter: MetricFilter| {
        let store = db.store.clone();
        async move { store.performance(prompt, &filter).await.unwrap() }
    };
    for window in Window::ALL {
        let of = metrics(MetricFilter { window: Some(window), ..MetricFilter::default() }).await;
        assert!(!of.is_empty() && of.iter().all(|metric| metric.aggregation_window == window.as_str()));
        assert!(of.is_sorted_by_key(|metric| std::cmp::Reverse(metric.timestamp)));
    }
    let midnight: Moment = "2026-11-21T00:00:00Z".parse().unwrap();
    let today = metrics(MetricFilter { window: Some(Window::Hour), from: Some(midnight), to: None }).await;
    let before = metrics(MetricFilter { window: Some(Window::Hour), from: None, to: Some(midnight) }).await;
    let all = metrics(MetricFilter { window: Some(Window::Hour), ..MetricFilter::default() }).await;
    assert!(!today.is_empty() && !before.is_empty());
    assert_eq!([today, before].concat(), all);
}

/// The only trace of an hour moves to another when its root comes: the windows over the first have no metrics any more.
async fn a_metric_without_a_value_goes(mut db: Db) {
    let root = root(1, 40 * 24 * HOUR_MS, 10);
    let mut late = call(&root, 2, (1, 1));
    late.start_ms += 35 * 24 * HOUR_MS;
    db.record(&[late]).await;
    db.rootless().await;
    db.publish().await;
    let before = check(&db).await;
    db.record(&[root]).await;
    db.publish().await;
    let after = check(&db).await;
    assert!(before.metrics.keys().all(|key| !after.metrics.contains_key(key)), "{:?}", after.metrics);
}

async fn a_new_day_moves_the_windows_of_quiet_prompts(mut db: Db) {
    db.record(&trace(1, 1_000, 10)).await;
    db.record(&trace(2, 20 * 24 * HOUR_MS, 10)).await;
    db.publish().await;
    check(&db).await;
    // Each day anew, and over days on which nothing ran.
    for days in [1, 2, 5, 6, 9, 31, 45, 46] {
        let now = UnixNanos(NOW.0 + days * DAY_NANOS);
        let published = db.store.publish(now).await.unwrap();
        assert!(!published.more);
        check_at(&db, now).await;
        let again = db.store.publish(now).await.unwrap();
        assert_eq!((again.prompts, again.windows), (0, 0));
    }
    // A clock that went back publishes what comes, and nothing else.
    db.record(&trace(3, 1_000, 20)).await;
    db.publish_at(UnixNanos(NOW.0 + 46 * DAY_NANOS)).await;
    check_at(&db, UnixNanos(NOW.0 + 46 * DAY_NANOS)).await;
    assert_eq!(db.store.publish(NOW).await.unwrap().windows, 0);
}

async fn much_that_is_dirty_is_published_piece_by_piece(mut db: Db) {
    let spans: Vec<_> = (0..700).flat_map(|number| trace(number, number * HOUR_MS, 10)).collect();
    db.record(&spans).await;
    let first = db.store.publish(NOW).await.unwrap();
    assert!(first.more && first.windows < 256 * 39);
    db.publish().await;
    check(&db).await;
    let months = MetricFilter { window: Some(Window::Month), ..MetricFilter::default() };
    assert_eq!(db.store.performance(UNASSIGNED, &months).await.unwrap().len(), 6 * 30);
}

async fn clocks_of_1970_and_2554_are_published(mut db: Db) {
    for (number, start_ms) in [0, 1, 18_446_744_073_000].into_iter().enumerate() {
        let mut spans = trace(number as u64, 0, 10);
        spans.iter_mut().for_each(|span| span.start_ms = start_ms);
        db.record(&spans).await;
    }
    db.publish().await;
    assert_eq!(check(&db).await.traces.len(), 3);
}
