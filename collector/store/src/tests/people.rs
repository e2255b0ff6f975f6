//! Profiles, passwords, ended tokens and calls, on both databases.

use std::time::Duration;

use emberd_model::UnixNanos;
use uuid::Uuid;

use super::harness::{Db, NOW, on_empty_postgres};
use super::on_both;
use crate::people::{BY_EMAIL, BY_ID, Profile, Used};

on_both!(
    a_profile_is_made_once,
    a_profile_is_read_from_an_index_alone,
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
    assert!(!store.set_role(Uuid::from_u128(0xe4e), "admin".into()).await.unwrap());
    assert!(store.set_role(ADA, "admin".into()).await.unwrap());
    assert_eq!(store.profile(ADA).await.unwrap().unwrap().role.as_deref(), Some("admin"));
    let kept = store.profile(plain.id).await.unwrap().unwrap();
    assert_eq!(kept, Profile { role: Some("member".into()), ..plain });
}

/// The statements that a login reads with touch no table, as the database itself says.
async fn a_profile_is_read_from_an_index_alone(db: Db) {
    let store = &db.store;
    for number in 0..2_000_u32 {
        let email = format!("{number}@example.com");
        let profile = Profile { id: Uuid::from_u128(u128::from(number) + 1), email, ..ada() };
        assert!(store.make_profile(profile).await.unwrap());
    }
    let values = [(BY_ID, Uuid::from_u128(7).to_string()), (BY_EMAIL, "6@example.com".to_owned())];
    if !db.is_sqlite() {
        db.sql("VACUUM ANALYZE public.profiles").await.unwrap();
    }
    for ((which, value), index) in values.into_iter().zip(["idx_profiles_id", "idx_profiles_email"]) {
        let sql = store.profiles(which, false).replace("$1", &format!("'{value}'"));
        let (explain, expected) = match db.is_sqlite() {
            true => ("EXPLAIN QUERY PLAN", format!("USING COVERING INDEX {index}")),
            false => ("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF)", format!("Index Only Scan using {index}")),
        };
        let plan = db.texts(&format!("{explain} {sql}")).await.join("\n");
        assert!(plan.contains(&expected), "{plan}");
        assert!(db.is_sqlite() || plan.contains("Heap Fetches: 0"), "{plan}");
    }
    assert_eq!(store.profile(Uuid::from_u128(7)).await.unwrap().unwrap().email, "6@example.com");
}

/// Another's table that lacks columns is read as it is, and again once it has got them or lost more.
#[test]
fn anothers_profiles_are_read_with_what_columns_they_have() {
    on_empty_postgres(|url| async {
        let db = Db::open(url);
        let made = "CREATE TABLE public.profiles (id uuid PRIMARY KEY, email text, role text, name text);
             INSERT INTO public.profiles VALUES ('00000000-0000-0000-0000-000000000ada', 'ada@example.com', 'editor', 'Ada')";
        db.sql(made).await.unwrap();
        db.store.migrate_up().await.unwrap();
        for _ in 0..2 {
            assert_eq!(db.store.profile(ADA).await.unwrap(), Some(ada()));
            assert_eq!(db.store.profile_by_email("ada@example.com").await.unwrap(), Some(ada()));
        }
        assert!(!db.store.set_role(ADA, "admin".into()).await.unwrap(), "nor is it changed");
        db.sql("ALTER TABLE public.profiles DROP COLUMN name").await.unwrap();
        assert_eq!(db.store.profile(ADA).await.unwrap(), Some(Profile { name: None, ..ada() }));
        let indexes = db.texts("SELECT indexname::text FROM pg_indexes WHERE tablename = 'profiles' ORDER BY 1").await;
        assert_eq!(indexes, ["idx_profiles_email", "profiles_pkey"], "nothing is made in another's table for this");
    });
}

/// One that has them all is read from the index that its owner made, by the statement that the documentation gives; and still is where a
/// column goes away later.
#[test]
fn anothers_profiles_are_read_from_their_owners_index() {
    on_empty_postgres(|url| async {
        let db = Db::open(url);
        let made = "CREATE TYPE public.app_role AS ENUM ('editor', 'admin');
             CREATE TABLE public.profiles (id uuid PRIMARY KEY, email varchar(200), name text, role public.app_role, department text, bio text);
             INSERT INTO public.profiles SELECT gen_random_uuid(), n || '@example.com', 'N', 'editor', NULL, repeat('x', 500)
                 FROM generate_series(1, 2000) AS n;
             INSERT INTO public.profiles VALUES ('00000000-0000-0000-0000-000000000ada', 'ada@example.com', 'Ada', 'editor')";
        db.sql(made).await.unwrap();
        let documented = include_str!("../../../../docs/caches.md");
        let statements: Vec<&str> =
            documented.lines().filter(|line| line.starts_with("CREATE INDEX CONCURRENTLY")).collect();
        assert_eq!(statements.len(), 2);
        for statement in statements {
            db.sql(statement).await.unwrap();
        }
        db.store.migrate_up().await.unwrap();
        db.sql("VACUUM ANALYZE public.profiles").await.unwrap();
        assert_eq!(db.store.profile(ADA).await.unwrap(), Some(ada()));
        for (which, value) in [(BY_ID, ADA.to_string()), (BY_EMAIL, "ada@example.com".to_owned())] {
            let sql = db.store.profiles(which, false).replace("$1", &format!("'{value}'"));
            let plan = db.texts(&format!("EXPLAIN (COSTS OFF) {sql}")).await.join("\n");
            assert!(plan.contains("Index Only Scan using"), "{plan}");
        }
        db.sql("ALTER TABLE public.profiles DROP COLUMN name").await.unwrap();
        assert_eq!(db.store.profile(ADA).await.unwrap(), Some(Profile { name: None, ..ada() }));
    });
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
