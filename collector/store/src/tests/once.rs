//! What is asked under a key, on both databases: once, however often and by how many at the same time.

use emberd_model::UnixNanos;
use uuid::Uuid;

use super::harness::{Db, NOW};
use super::on_both;
use crate::library::NewPrompt;
use crate::once::{Done, KEPT, Once};

on_both!(a_key_makes_one_row, a_key_that_made_nothing_is_free, a_race_makes_one_row, the_cursors_secret_is_one);

fn once(key: &str, body: u8) -> Option<Once> {
    Some(Once { creator: Uuid::nil(), operation: "create_prompt", key: key.into(), digest: [body; 32] })
}

fn new() -> NewPrompt {
    NewPrompt { title: "greeting".into(), content: "c".into(), created_by: None }
}

fn made<T>(done: Done<T>) -> T {
    match done {
        Done::Now(made) => made,
        _ => panic!("made before"),
    }
}

async fn a_key_makes_one_row(db: Db) {
    let store = &db.store;
    let first = made(store.create_prompt_once(new(), once("k", 1), NOW).await.unwrap());
    let again = store.create_prompt_once(new(), once("k", 1), NOW).await.unwrap();
    assert_eq!(again, Done::Before(first.id));
    assert_eq!(store.create_prompt_once(new(), once("k", 2), NOW).await.unwrap(), Done::OtherBody);
    let other = made(store.create_prompt_once(new(), once("l", 1), NOW).await.unwrap());
    assert_ne!(other.id, first.id);
    // Another's key is another key, and so is another operation's.
    let bobs = Once { creator: Uuid::from_u128(0xb0b), ..once("k", 1).unwrap() };
    made(store.create_prompt_once(new(), Some(bobs), NOW).await.unwrap());
    let of_another = Once { operation: "other", ..once("k", 1).unwrap() };
    made(store.create_prompt_once(new(), Some(of_another), NOW).await.unwrap());
    // Without a key everything is made anew.
    made(store.create_prompt_once(new(), None, NOW).await.unwrap());
    // What is too long ago is forgotten, when something is asked.
    let later = UnixNanos(NOW.0 + KEPT.as_nanos() as u64 + 1_000_000);
    made(store.create_prompt_once(new(), once("m", 1), later).await.unwrap());
    made(store.create_prompt_once(new(), once("k", 1), later).await.unwrap());

    let same =
        async |body, is_new| store.same_body(once("e", body).unwrap(), Uuid::from_u128(1), is_new, NOW).await.unwrap();
    // Whoever did not make it keeps nothing, and so never makes its maker the other one.
    assert!(same(2, false).await);
    assert!(same(1, true).await && same(1, false).await);
    assert!(!same(2, false).await);
}

async fn a_key_that_made_nothing_is_free(db: Db) {
    let stranger = NewPrompt { created_by: Some(Uuid::from_u128(7)), ..new() };
    assert!(db.store.create_prompt_once(stranger, once("k", 1), NOW).await.is_err());
    made(db.store.create_prompt_once(new(), once("k", 2), NOW).await.unwrap());
}

async fn a_race_makes_one_row(db: Db) {
    let ask = || {
        let store = db.store.clone();
        async move { store.create_prompt_once(new(), once("k", 1), NOW).await.unwrap() }
    };
    let all = tokio::join!(ask(), ask(), ask(), ask(), ask());
    let all = [all.0, all.1, all.2, all.3, all.4];
    let ids: Vec<Uuid> = all
        .iter()
        .map(|done| match done {
            Done::Now(prompt) => prompt.id,
            Done::Before(id) => *id,
            Done::OtherBody => panic!("the body is one"),
        })
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(all.iter().filter(|done| matches!(done, Done::Now(_))).count(), 1);
    let prompts = db.store.prompts(None, 10).await.unwrap().data;
    assert_eq!(prompts.iter().filter(|prompt| prompt.title == "greeting").count(), 1);
}

async fn the_cursors_secret_is_one(db: Db) {
    let secret = db.store.secret("cursors").await.unwrap().unwrap();
    assert_eq!(secret.len(), 32);
    assert_ne!(secret, [0; 32]);
    assert_eq!(db.store.secret("cursors").await.unwrap(), Some(secret));
    assert_eq!(db.store.secret("none").await.unwrap(), None);
}
