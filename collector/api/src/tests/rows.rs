//! Bad inputs of the catalogue (reliability §3.4) that no other file asks about; `docs/api.md` says which row is asked where.

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::identity::{ask, bearer, identity, user};
use super::world::{Kind, World};

fn ada() -> String {
    bearer(&user(Uuid::from_u128(0xada), "ada", "member"))
}

/// Row 74: what two readers could read in two ways is refused, and the connection closed; where it is not refused, one request is read and
/// no second one out of its body.
#[tokio::test]
async fn requests_that_could_be_read_in_two_ways() {
    let world = World::new(Kind::Sqlite).await;
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let post = "POST /api/prompts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let chunked = "0\r\n\r\n";
    for (what, request) in [
        ("CL.TE", format!("{post}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{chunked}{smuggled}")),
        ("TE.CL", format!("{post}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n{chunked}{smuggled}")),
        ("CL.CL", format!("{post}content-length: 0\r\ncontent-length: 5\r\n\r\n{chunked}{smuggled}")),
        ("CL,CL", format!("{post}content-length: 0, 5\r\n\r\n{smuggled}")),
        ("TE twice", format!("{post}transfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n{chunked}{smuggled}")),
        ("TE unknown", format!("{post}transfer-encoding: x\r\n\r\n{chunked}{smuggled}")),
        ("CL signed", format!("{post}content-length: +5\r\n\r\n{chunked}{smuggled}")),
        ("obs-fold", format!("{post}x-folded: a\r\n b\r\ncontent-length: 0\r\n\r\n{smuggled}")),
        ("space before colon", format!("{post}content-length : 0\r\n\r\n{smuggled}")),
        ("CR in a value", format!("{post}x-cut: a\rb: c\r\ncontent-length: 0\r\n\r\n{smuggled}")),
    ] {
        let back = world.raw(&request).await;
        assert!(back.starts_with("HTTP/1.1 400 "), "{what}: {back}");
        assert_eq!(back.matches("HTTP/1.1 ").count(), 1, "{what}: {back}");
        assert!(!back.contains("healthy"), "{what}: {back}");
    }
    // A bare LF ends a line, and means the same to all that follows.
    let back = world.raw("GET /healthz HTTP/1.1\nhost: localhost\nconnection: close\n\n").await;
    assert!(back.starts_with("HTTP/1.1 200 "), "{back}");
    world.end().await;
}

/// Every test that `docs/api.md` names is one.
#[test]
fn the_rows_of_the_docs_are_tests() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = String::new();
    for folder in
        ["collector/api/src", "collector/identity/src", "collector/daemon/tests/it", "evaluators/datasets/src"]
    {
        read(&root.join(folder), &mut sources);
    }
    let docs = std::fs::read_to_string(root.join("docs/api.md")).unwrap();
    let names: Vec<&str> = docs
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(" | "))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter_map(|code| code.rsplit([':', ' ']).next())
        .filter(|name| name.matches('_').count() >= 3)
        .collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        assert!(sources.contains(&format!("fn {name}")), "docs/api.md names {name}, which is no test");
    }
}

fn read(folder: &std::path::Path, sources: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// Rows 77 and 78: ids that are none, an id of another's, bodies that are too large or say what only emberd may say.
#[tokio::test]
async fn ids_and_fields_that_are_not_the_callers_to_give() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    let dataset = json!({ "name": "d", "type": "custom", "data": [{ "input": 1 }] });
    let made = ask(&world, &ada(), "POST", "/api/datasets", &dataset).await.json();
    let bob = bearer(&user(Uuid::from_u128(0xb0b), "bob", "member"));
    let path = format!("/api/datasets/{}", made["id"].as_str().unwrap());
    for (method, body) in [("GET", Value::Null), ("PATCH", json!({ "name": "n" })), ("DELETE", Value::Null)] {
        let (anothers, nobodys) = (
            ask(&world, &bob, method, &path, &body).await,
            ask(&world, &bob, method, &format!("/api/datasets/{}", Uuid::from_u128(17)), &body).await,
        );
        assert_eq!((anothers.status, &anothers.text), (StatusCode::NOT_FOUND, &nobodys.text), "{method}");
    }
    for id in ["x", "0x17", "17", "%00", "..%2f", "' OR 1=1 --".replace(' ', "%20").as_str(), &"f".repeat(10_000)] {
        assert_eq!(
            ask(&world, &ada(), "GET", &format!("/api/datasets/{id}"), &Value::Null).await.status,
            StatusCode::BAD_REQUEST,
            "{id}"
        );
    }
    for field in ["tenant_id", "role", "created_by", "createdBy", "id", "created_at", "user_id"] {
        for (path, mut body) in [
            ("/api/prompts", json!({ "title": "t", "content": "c" })),
            ("/api/datasets", dataset.clone()),
            ("/api/analytics/events", json!({ "name": "n" })),
        ] {
            if (path, field) == ("/api/analytics/events", "id") {
                continue; // An event may bring one, so that it can be sent again.
            }
            body[field] = json!("admin");
            let wrong = ask(&world, &ada(), "POST", path, &body).await.details();
            assert_eq!(wrong, [(field.to_owned(), "unknown field".to_owned())], "{path}");
        }
    }
    let large = json!({ "title": "t", "content": "x".repeat(2 << 20) });
    assert_eq!(ask(&world, &ada(), "POST", "/api/prompts", &large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for path in ["/api/prompts", "/api/datasets", "/api/datasets/upload?name=n"] {
        let announced = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            ada(),
            100 << 20
        );
        let back = world.raw(&announced).await;
        assert!(back.starts_with("HTTP/1.1 413 "), "before a byte of it was sent: {path} {back}");
        assert!(back.contains(r#"{"error":"larger than "#), "{back}");
    }
    for body in ["", "[]", "3", "\"x\"", "{", "{\"title\":\"t\",\"title\":\"u\"}x", "nul", "\u{feff}{}"] {
        let headers = [("authorization", ada()), ("content-type", "application/json".to_owned())];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(world.ask("POST", "/api/prompts", &headers, body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
    world.end().await;
}

/// Row 80: a cell that a spreadsheet would run does not run, and comes back as it was; no answer names a file.
#[tokio::test]
async fn a_formula_is_a_text() {
    let world = World::new(Kind::Sqlite).await;
    let dataset = json!({ "name": "evil\r\nset-cookie: a=b", "type": "qa_pairs", "data": [{ "id": "+1", "question": "=cmd|' /C calc'!A0", "answer": "-2" }] });
    let made = world.post("/api/datasets", &dataset.to_string()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let path = format!("/api/datasets/{}/export", made.json()["id"].as_str().unwrap());
    let file = world.ask("GET", &path, &[("accept", "text/csv")], "").await;
    assert_eq!(file.text, "id,question,answer,metadata\n+1,'=cmd|' /C calc'!A0,-2,\n");
    assert_eq!((file.header("content-disposition"), file.header("set-cookie")), (None, None));
    let again = world
        .ask("POST", "/api/datasets/upload?name=again&type=qa_pairs", &[("content-type", "text/csv")], &file.text)
        .await;
    let examples = world.get(&format!("/api/datasets/{}/examples", again.json()["id"].as_str().unwrap())).await.json();
    assert_eq!(examples["data"][0]["question"], "=cmd|' /C calc'!A0");
    world.end().await;
}

/// Row 82: a document as long as the largest body is not even parsed.
#[tokio::test]
async fn a_long_document_is_refused() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    let query = format!("{{ traces(first: 1) {{ {} }} }}", "id ".repeat(22_000));
    let answer = ask(&world, &ada(), "POST", "/graphql", &json!({ "query": query })).await;
    assert_eq!(
        (answer.status, &answer.json()["errors"][0]["extensions"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("BAD_REQUEST"))
    );
    world.end().await;
}
