//! Traces find their prompts: named by id or title, before or after the prompt exists, and also when it goes.

use uuid::Uuid;

use super::harness::{Db, NOW, WRITER};
use super::on_both;
use super::oracle::{all_traces, check};
use super::spans::{call, root, trace};
use crate::library::{NewPrompt, UNASSIGNED};
use crate::{Recorded, Writer};

on_both!(
    a_prompt_is_named_by_id_or_title,
    of_two_prompts_with_one_title_the_older_counts,
    a_prompt_that_appears_later_gets_its_traces,
    what_only_looks_like_a_name_joins_nothing,
    long_titles_are_names_too,
    very_many_names_are_gone_through_in_turn,
    a_deleted_prompt_takes_its_traces_along,
    the_reserved_prompt_comes_back,
    a_prompt_needs_a_profile_that_exists,
);

async fn a_prompt_is_named_by_id_or_title(mut db: Db) {
    let (faq, other) = (db.prompt("faq").await, db.prompt("other").await);
    let names =
        ["faq".to_owned(), faq.to_string(), faq.to_string().to_uppercase(), other.to_string(), "FAQ".to_owned()];
    for (number, name) in names.iter().enumerate() {
        let [root, call] = trace(number as u64, 1_000 * (1 + number as u64), 10);
        db.record(&[root.of_prompt(name), call]).await;
    }
    db.publish().await;
    check(&db).await;
    let prompts: Vec<Uuid> = all_traces(&db).await.iter().map(|trace| trace.prompt_id).collect();
    assert_eq!(prompts, [faq, faq, faq, other, UNASSIGNED]);
}

async fn of_two_prompts_with_one_title_the_older_counts(mut db: Db) {
    let make = |seconds: u64| {
        let new = NewPrompt { title: "twice".into(), content: String::new(), created_by: None };
        db.store.create_prompt(new, emberd_model::UnixNanos(NOW.0 + seconds * 1_000_000_000))
    };
    let younger = make(10).await.unwrap().id;
    let older = make(5).await.unwrap().id;
    let [root, call] = trace(1, 5_000, 10);
    db.record(&[root.of_prompt("twice"), call]).await;
    assert_ne!(younger, older);
    assert_eq!(all_traces(&db).await[0].prompt_id, older);
}

/// Rows, states and rollups are as if the prompts had been there from the start: of open traces and of settled ones, under both names.
async fn a_prompt_that_appears_later_gets_its_traces(mut db: Db) {
    let day = 86_400_000;
    let by_id = Uuid::from_u128(0x1d);
    let spans = |number: u64, name: &str| {
        let [root, call] = trace(number, 1 + number % 5 * day, 10 + number);
        [root.of_prompt(name), call]
    };
    for number in 0..20 {
        db.record(&spans(number, ["later", "never", &by_id.to_string().to_uppercase()][number as usize % 3])).await;
    }
    let hour = std::time::Duration::from_secs(3600);
    let settled = db.store.settle(emberd_model::UnixNanos(NOW.0 + 4_000_000_000_000), hour).await.unwrap();
    assert_eq!(settled.traces, 20);
    for number in 20..40 {
        db.record(&spans(number, ["later", "never", &by_id.to_string()][number as usize % 3])).await;
    }
    db.publish().await;
    check(&db).await;
    assert_eq!(db.join_prompts().await, 0);

    let later = db.prompt("later").await;
    db.sql(&format!("INSERT INTO prompts (id, title) VALUES ('{by_id}', 'by id')")).await.unwrap();
    assert_eq!(db.join_prompts().await, 27);
    assert_eq!(db.join_prompts().await, 0);
    db.publish().await;
    let seen = check(&db).await;
    let of = |prompt: Uuid| seen.traces.iter().filter(|trace| trace["prompt_id"] == prompt.to_string()).count();
    assert_eq!((of(later), of(by_id), of(UNASSIGNED)), (14, 13, 13));

    // What comes for a joined trace afterwards finds it where it is.
    let recorded = db.record(&[call(&root(21, 1 + day, 31), 7, (100, 100))]).await;
    assert_eq!((recorded.merged, recorded.rows), (1, 1));
    db.publish().await;
    check(&db).await;
}

async fn what_only_looks_like_a_name_joins_nothing(mut db: Db) {
    // A prompt whose title is a UUID: a trace that names this UUID means an id.
    let uuid = Uuid::from_u128(0xfeed).to_string();
    db.prompt(&uuid).await;
    let long = "x".repeat(120);
    db.prompt(&long).await;
    for (number, name) in
        [&uuid, "unassigned", &UNASSIGNED.to_string(), &format!("{long}y"), "FAQ"].into_iter().enumerate()
    {
        let [root, call] = trace(number as u64, 5_000, 10);
        db.record(&[root.of_prompt(name), call]).await;
    }
    db.prompt("faq").await;
    assert_eq!(db.join_prompts().await, 0);
    assert!(all_traces(&db).await.iter().all(|trace| trace.prompt_id == UNASSIGNED));
}

async fn long_titles_are_names_too(mut db: Db) {
    let (one, other) = ("é".repeat(99) + "one", "é".repeat(99) + "other");
    for (number, name) in [&one, &other, &one].into_iter().enumerate() {
        let [root, call] = trace(number as u64, 1_000 + number as u64, 10);
        db.record(&[root.of_prompt(name), call]).await;
    }
    let prompt = db.prompt(&one).await;
    assert_eq!(db.join_prompts().await, 2);
    let prompts: Vec<Uuid> = all_traces(&db).await.iter().map(|trace| trace.prompt_id).collect();
    assert_eq!(prompts, [prompt, UNASSIGNED, prompt]);
}

/// More distinct names than a pass looks at: what a later one would find is found, pass by pass.
async fn very_many_names_are_gone_through_in_turn(mut db: Db) {
    let names = u64::from(crate::join::NAMES) * 2 + 50;
    let spans: Vec<_> = (0..names)
        .flat_map(|number| {
            let [root, call] = trace(number, number, 10);
            [root.of_prompt(&format!("name {number:06}")), call]
        })
        .collect();
    db.record(&spans).await;
    db.prompt(&format!("name {:06}", names - 1)).await;
    db.prompt("name 000000").await;
    let writer = Writer::new(WRITER);
    let mut moved = Vec::new();
    for _ in 0..4 {
        moved.push(db.store.join_prompts(&writer).await.unwrap().traces);
    }
    assert_eq!(moved, [1, 0, 1, 0]);
    db.publish().await;
    check(&db).await;
}

async fn a_deleted_prompt_takes_its_traces_along(mut db: Db) {
    let prompt = db.prompt("short-lived").await;
    let [root, llm] = trace(1, 5_000, 10);
    let root = root.of_prompt("short-lived");
    db.record(&[root.clone(), llm]).await;
    db.record(&trace(2, 5_000, 10)).await;
    db.publish().await;
    db.sql(&format!("DELETE FROM prompts WHERE id = '{prompt}'")).await.unwrap_or_else(|error| panic!("{error}"));
    db.publish().await;
    assert_eq!(check(&db).await.traces.len(), 1);

    // The trace goes on: it has a row again, and counts once, where it belongs now.
    let recorded = db.record(&[call(&root, 3, (1, 1))]).await;
    assert_eq!((recorded.merged, recorded.rows), (1, 1));
    db.publish().await;
    assert_eq!(check(&db).await.traces.len(), 2);
    // Under the same id, as from a backup.
    db.sql(&format!("INSERT INTO prompts (id, title) VALUES ('{prompt}', 'short-lived')")).await.unwrap();
    assert_eq!(db.join_prompts().await, 1);
    db.publish().await;
    assert_eq!(check(&db).await.summaries.len(), 1);
}

/// Whoever deletes the reserved prompt loses its traces, and stops nothing.
async fn the_reserved_prompt_comes_back(mut db: Db) {
    db.record(&trace(1, 5_000, 10)).await;
    db.sql(&format!("DELETE FROM prompts WHERE id = '{UNASSIGNED}'")).await.unwrap();
    let recorded = db.record(&trace(2, 5_000, 10)).await;
    assert_eq!(recorded, Recorded { new: 1, rows: 1, retries: 1, ..Recorded::default() });
    db.publish().await;
    assert_eq!(check(&db).await.traces.len(), 1);
}

async fn a_prompt_needs_a_profile_that_exists(db: Db) {
    use crate::error::CreatePromptError::NoSuchProfile;
    let new = |created_by| NewPrompt { title: "t".into(), content: "c".into(), created_by };
    let made = db.store.create_prompt(new(Some(Uuid::nil())), NOW).await.unwrap();
    assert_eq!(db.store.prompt(made.id).await.unwrap(), Some(made));
    let nobody = db.store.create_prompt(new(Some(Uuid::from_u128(7))), NOW).await;
    assert!(matches!(nobody, Err(NoSuchProfile)), "{nobody:?}");
    // Joining with nothing to join, on an empty database.
    assert_eq!(db.store.join_prompts(&Writer::new(WRITER)).await.unwrap().traces, 0);
}
