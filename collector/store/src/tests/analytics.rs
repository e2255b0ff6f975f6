//! Events, sessions and days, on both databases: repeated, split and raced, the rows come out the same.

use emberd_model::UnixNanos;
use serde_json::json;
use uuid::Uuid;

use super::harness::{Db, NOW};
use super::on_both;
use crate::Moment;
use crate::analytics::{DayTotals, Event, Session};

on_both!(
    an_event_is_one_row_however_often_it_comes,
    a_users_session_goes_on_until_a_pause,
    several_emberds_begin_one_session,
    sessions_and_days_are_computed_from_what_is_there,
);

const ADA: Uuid = Uuid::from_u128(0xada);
const BOB: Uuid = Uuid::from_u128(0xb0b);

fn minutes(n: u64) -> UnixNanos {
    UnixNanos(NOW.0 + n * 60_000_000_000)
}

fn event(n: u128, user: Option<Uuid>) -> Event {
    Event {
        id: Uuid::from_u128(n),
        name: "prompt.opened".into(),
        properties: json!({ "n": n as u64, "text": "a\u{0}b" }),
        user,
        session: Some(Uuid::from_u128(7)),
        prompt: None,
        at: minutes(n as u64).into(),
    }
}

async fn an_event_is_one_row_however_often_it_comes(db: Db) {
    let store = &db.store;
    store.put_events(Vec::new()).await.unwrap();
    store.put_events(vec![event(1, Some(ADA)), event(2, None), event(1, Some(BOB))]).await.unwrap();
    store.put_events(vec![event(2, Some(BOB)), event(3, None)]).await.unwrap();
    let kept = store.events(10).await.unwrap();
    let seen: Vec<_> = kept.iter().map(|event| (event.id.as_u128(), event.user)).collect();
    assert_eq!(seen, [(3, None), (2, None), (1, Some(ADA))], "the first that came stays");
    let clean = Event { properties: json!({ "n": 1, "text": "a\u{fffd}b" }), ..event(1, Some(ADA)) };
    assert!(kept[2] == clean || kept[2].properties["text"] == "ab", "{:?}", kept[2]);
}

async fn a_users_session_goes_on_until_a_pause(db: Db) {
    let store = &db.store;
    store.touch_sessions(Vec::new()).await.unwrap();
    store.touch_sessions(vec![(ADA, minutes(0)), (BOB, minutes(1)), (ADA, minutes(20))]).await.unwrap();
    store.touch_sessions(vec![(ADA, minutes(50)), (ADA, minutes(40))]).await.unwrap();
    // Late news changes nothing; half an hour and a minute after the last is another session.
    store.touch_sessions(vec![(ADA, minutes(45))]).await.unwrap();
    store.touch_sessions(vec![(ADA, minutes(81)), (ADA, minutes(112))]).await.unwrap();
    let sessions: Vec<_> = store
        .sessions(10)
        .await
        .unwrap()
        .into_iter()
        .map(|session| (session.user, session.first, session.last))
        .collect();
    let at = |n: u64| Moment::from(minutes(n));
    let ada = |from: u64, to: u64| (Some(ADA), at(from), at(to));
    assert_eq!(sessions, [ada(112, 112), ada(81, 81), ada(0, 50), (Some(BOB), at(1), at(1))]);
}

async fn several_emberds_begin_one_session(db: Db) {
    let touch = |n: u64| {
        let store = db.store.clone();
        async move { store.touch_sessions(vec![(ADA, UnixNanos(NOW.0 + n * 1_000_000))]).await.unwrap() }
    };
    tokio::join!(touch(3), touch(1), touch(2), touch(5), touch(4));
    let sessions = db.store.sessions(10).await.unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert_eq!(sessions[0].last, Moment::from(UnixNanos(NOW.0 + 5_000_000)));
}

async fn sessions_and_days_are_computed_from_what_is_there(db: Db) {
    let store = &db.store;
    let (chat, day) = (Uuid::from_u128(0xc4a7), "2026-11-21");
    let profile = format!("INSERT INTO profiles (id, email) VALUES ('{ADA}', 'ada@example.com')");
    db.sql(&profile).await.unwrap();
    let trace = |n: u8, time: &str, user: &str, cost: &str| {
        format!(
            "INSERT INTO prompt_traces (id, prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, metadata, created_at, user_id)
             VALUES ('{}', '{}', '{}', '{chat}', 5, '{{\"prompt\": 1, \"completion\": 2, \"total\": 3}}', 'm', 'success', '{cost}', '{time}', {user})",
            Uuid::from_u128(u128::from_be_bytes([n; 16])), Uuid::nil(), format!("{n:02x}").repeat(16),
        )
    };
    let cost = r#"{"cost": {"total": 0.000075, "currency": "USD"}}"#;
    let ada = format!("'{ADA}'");
    db.sql(&trace(1, "2026-11-21T00:00:00.000000Z", &ada, cost)).await.unwrap();
    db.sql(&trace(2, "2026-11-21T23:59:59.999999Z", "NULL", cost)).await.unwrap();
    db.sql(&trace(3, "2026-11-22T00:00:00.000000Z", "NULL", "{}")).await.unwrap();
    store.put_events(vec![event(1, Some(BOB))]).await.unwrap();
    store.touch_sessions(vec![(ADA, minutes(0))]).await.unwrap();
    let at = |text: &str| text.parse::<Moment>().unwrap();
    for _ in 0..2 {
        let since = Moment::from_micros(at("2026-11-22T00:00:00Z").micros());
        store.refresh_sessions(UnixNanos(since.micros() as u64 * 1_000)).await.unwrap();
        let passes = [store.refresh_day(NOW), store.refresh_day(NOW)];
        for pass in Box::pin(futures_of(passes)).await {
            pass.unwrap();
        }
        let of_chat = store.sessions(10).await.unwrap().into_iter().find(|session| session.id == chat).unwrap();
        let expected = Session {
            id: chat,
            user: Some(ADA),
            first: at("2026-11-21T00:00:00Z"),
            last: at("2026-11-22T00:00:00Z"),
            traces: 3,
            tokens: 9,
            cost: "0.00015".into(),
        };
        assert_eq!(of_chat, expected);
        let expected =
            DayTotals { day: day.into(), traces: 2, tokens: 6, cost: "0.00015".into(), users: 2, evaluations: 0 };
        assert_eq!(store.days(10).await.unwrap(), [expected]);
    }
}

/// Both at once.
async fn futures_of<F: Future>([one, two]: [F; 2]) -> [F::Output; 2] {
    let (one, two) = tokio::join!(one, two);
    [one, two]
}
