//! A cursor leads on in its own list, for its own caller, and nowhere else (reliability row 76).

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::identity::{ask, bearer, identity, user};
use super::world::{Answer, Kind, World};

fn token(n: u128, name: &str) -> String {
    bearer(&user(Uuid::from_u128(n), name, "member"))
}

fn is_refused(answer: &Answer) {
    assert_eq!(answer.details(), [("cursor".to_owned(), "not a cursor of this list".to_owned())]);
}

#[tokio::test]
async fn a_cursor_that_was_changed_or_is_anothers_is_refused() {
    for kind in Kind::ALL {
        let world = World::with(kind, identity(), &[]).await;
        let (ada, bob) = (token(0xada, "ada"), token(0xb0b, "bob"));
        for n in 0..4 {
            let prompt = json!({ "title": format!("p{n}"), "content": "c" });
            assert_eq!(ask(&world, &ada, "POST", "/api/prompts", &prompt).await.status, StatusCode::CREATED);
            let dataset =
                json!({ "name": "d", "type": "custom", "isPublic": true, "data": [{ "input": 1 }, { "input": 2 }] });
            assert_eq!(ask(&world, &ada, "POST", "/api/datasets", &dataset).await.status, StatusCode::CREATED);
        }
        let get = async |who: &str, path: &str| ask(&world, who, "GET", path, &Value::Null).await;
        let page = get(&ada, "/api/prompts?limit=2").await.json();
        let cursor = page["next_cursor"].as_str().unwrap();
        let next = get(&ada, &format!("/api/prompts?limit=2&cursor={cursor}")).await.json();
        assert_eq!(next["data"].as_array().unwrap().len(), 2);
        assert_ne!(next["data"], page["data"]);
        // Another caller, another list.
        is_refused(&get(&bob, &format!("/api/prompts?cursor={cursor}")).await);
        is_refused(&get(&ada, &format!("/api/datasets?cursor={cursor}")).await);
        // Any byte of it.
        for at in 0..cursor.len() {
            let mut bytes = cursor.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).unwrap();
            is_refused(&get(&ada, &format!("/api/prompts?cursor={changed}")).await);
        }
        let (place, _) = cursor.rsplit_once('.').unwrap();
        for made_up in [place.to_owned(), format!("{place}."), format!(".{place}"), "x".repeat(1_000)] {
            is_refused(&get(&ada, &format!("/api/prompts?cursor={made_up}")).await);
        }
        // A dataset's examples, which are counted and not dated: not those of another dataset.
        let datasets = get(&ada, "/api/datasets").await.json();
        let id = |n: usize| datasets["data"][n]["id"].as_str().unwrap().to_owned();
        let examples = get(&ada, &format!("/api/datasets/{}/examples?limit=1", id(0))).await.json();
        let cursor = examples["next_cursor"].as_str().unwrap();
        let next = get(&ada, &format!("/api/datasets/{}/examples?limit=1&cursor={cursor}", id(0))).await.json();
        assert_eq!(next["data"][0]["input"], 2);
        is_refused(&get(&ada, &format!("/api/datasets/{}/examples?cursor={cursor}", id(1))).await);
        world.end().await;
    }
}
