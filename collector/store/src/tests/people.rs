//! Profiles, passwords, ended tokens and calls, on both databases.

use std::time::Duration;

use emberd_model::UnixNanos;
use uuid::Uuid;

use super::harness::{Db, NOW};
use super::on_both;
use crate::people::{Profile, Used};

on_both!(
    a_profile_is_made_once,
    a_password_belongs_to_a_profile,
    an_ended_token_is_known_until_it_ends_by_itself,
    calls_are_kept_newest_first,
);

const ADA: Uuid = Uuid::from_u128(0xada);

fn ada() -> Profile {
    Profile {
        id: ADA,
        email: "ada@example.com".into(),
        name: Some("Ada".into()),
        role: Some("editor".into()),
        department: None,
    }
}

async fn a_profile_is_made_once(db: Db) {
    let store = &db.store;
    assert_eq!(store.profile(ADA).await.unwrap(), None);
    assert!(store.make_profile(ada()).await.unwrap());
    assert_eq!(store.profile(ADA).await.unwrap(), Some(ada()));
    assert_eq!(store.profile_by_email("ada@example.com").await.unwrap(), Some(ada()));
    assert_eq!(store.profile_by_email("ADA@example.com").await.unwrap(), None);
    // Neither the id nor the address is given twice, and what stands stays.
    for other in [
        Profile { email: "other@example.com".into(), ..ada() },
        Profile { id: Uuid::from_u128(0xb0b), name: None, ..ada() },
    ] {
        assert!(!store.make_profile(other).await.unwrap());
    }
    assert_eq!(store.profile_by_email("other@example.com").await.unwrap(), None);
    let plain = Profile {
        id: Uuid::from_u128(0xb0b),
        email: "bob@example.com".into(),
        name: None,
        role: None,
        department: None,
    };
    assert!(store.make_profile(plain.clone()).await.unwrap());
    let kept = store.profile(plain.id).await.unwrap().unwrap();
    assert_eq!(kept, Profile { role: Some("member".into()), ..plain });
}

async fn a_password_belongs_to_a_profile(db: Db) {
    let store = db.store.clone();
    assert!(!store.set_password(ADA, Some("hash".into()), NOW).await.unwrap());
    assert!(!store.set_password(ADA, None, NOW).await.unwrap());
    store.make_profile(ada()).await.unwrap();
    assert_eq!(store.password(ADA).await.unwrap(), None);
    for hash in ["one", "two"] {
        assert!(store.set_password(ADA, Some(hash.into()), NOW).await.unwrap());
        assert_eq!(store.password(ADA).await.unwrap().as_deref(), Some(hash));
    }
    assert!(store.set_password(ADA, None, NOW).await.unwrap());
    assert_eq!(store.password(ADA).await.unwrap(), None);
    store.set_password(ADA, Some("three".into()), NOW).await.unwrap();
    db.sql(&format!("DELETE FROM profiles WHERE id = '{ADA}'")).await.unwrap();
    assert_eq!(store.password(ADA).await.unwrap(), None);
}

async fn an_ended_token_is_known_until_it_ends_by_itself(db: Db) {
    let store = &db.store;
    let at = |seconds: u64| UnixNanos(NOW.0 + seconds * 1_000_000_000);
    store.revoke([1; 32], at(10), NOW).await.unwrap();
    store.revoke([1; 32], at(10), NOW).await.unwrap();
    store.revoke([2; 32], at(20), NOW).await.unwrap();
    let mut known = store.revoked(NOW).await.unwrap();
    known.sort();
    assert_eq!(known, [[1; 32], [2; 32]]);
    assert_eq!(store.revoked(at(10)).await.unwrap(), [[2; 32]]);
    store.revoke([3; 32], at(60), at(30)).await.unwrap();
    assert_eq!(store.revoked(NOW).await.unwrap(), [[3; 32]], "what ended is gone");
}

async fn calls_are_kept_newest_first(db: Db) {
    let store = &db.store;
    let call = |n: u64| Used {
        user: n.is_multiple_of(2).then_some(ADA),
        method: "GET".into(),
        path: format!("/api/{n}"),
        status: 200,
        latency: Duration::from_millis(n),
        at: UnixNanos(NOW.0 + n * 1_000_000),
    };
    store.put_usage((0..50).map(call).collect()).await.unwrap();
    store.put_usage(Vec::new()).await.unwrap();
    let last = store.usage(3).await.unwrap();
    assert_eq!(last, [call(49), call(48), call(47)]);
}
