//! The subgraph over HTTP, on both databases.

use emberd_identity::{Permission, Permissions};
use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::identity::{ask, bearer, identity, user};
use super::world::{Answer, Kind, Made, World};
use crate::{Flag, Flags};

const ADA: Uuid = Uuid::from_u128(0xada);

fn ada() -> String {
    bearer(&user(ADA, "ada", "member"))
}

fn admin() -> String {
    bearer(&user(Uuid::from_u128(0xe4e), "eve", "admin"))
}

async fn graph(world: &World, token: &str, query: &str, variables: Value) -> Answer {
    ask(world, token, "POST", "/graphql", &json!({ "query": query, "variables": variables })).await
}

async fn data(world: &World, token: &str, query: &str, variables: Value) -> Value {
    let answer = graph(world, token, query, variables).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["errors"], Value::Null, "{body}");
    body["data"].clone()
}

/// Two prompts with traces and evaluations, made by Ada.
async fn filled(world: &World) -> [String; 2] {
    let mut prompts = Vec::new();
    for title in ["one", "two"] {
        let body = json!({ "title": title, "content": "Say {{input}}." });
        let made = ask(world, &ada(), "POST", "/api/prompts", &body).await;
        prompts.push(made.json()["id"].as_str().unwrap().to_owned());
    }
    let mut traces = Vec::new();
    for number in 1..=12 {
        let mut made = Made::new(number, &prompts[usize::from(number % 2)]);
        made.fails = number == 3;
        traces.push(made);
    }
    world.record(&traces).await;
    let dataset = json!({ "name": "d", "type": "custom", "data": [{ "input": "a", "output": "a", "reference": "a" }] });
    let dataset = ask(world, &ada(), "POST", "/api/datasets", &dataset).await.json()["id"].clone();
    for n in 0..3 {
        let config = json!({ "model": "recorded", "evaluators": ["exact_match"] });
        let body = json!({ "promptId": prompts[0], "datasetId": dataset, "name": format!("e{n}"), "config": config });
        let made = ask(world, &ada(), "POST", "/api/evaluations", &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    }
    prompts.try_into().unwrap()
}

#[tokio::test]
async fn a_prompt_is_completed_with_what_emberd_knows() {
    for kind in Kind::ALL {
        let world = World::with(kind, identity(), &[]).await;
        let [one, two] = filled(&world).await;
        let query = "query($keys: [_Any!]!) { _entities(representations: $keys) { ... on Prompt { id
            evaluations(first: 2) { id name status createdBy config cursor prompt { id } }
            traces(first: 3) { phoenixTraceId status executionTimeMs model tokensUsed createdAt }
            failed: traces(status: error) { phoenixTraceId error }
            performance(window: HOUR) { metricType value aggregationWindow } } } }";
        let key = |id: &str| json!({ "__typename": "Prompt", "id": id });
        let found = data(&world, &ada(), query, json!({ "keys": [key(&one), key(&two), key(&one)] })).await;
        let entities = found["_entities"].as_array().unwrap();
        assert_eq!(entities.len(), 3, "{found}");
        assert_eq!(entities[0], entities[2]);
        let evaluations = entities[0]["evaluations"].as_array().unwrap();
        assert_eq!(evaluations.len(), 2);
        assert!(evaluations[0]["name"].as_str().unwrap().starts_with('e'));
        assert_eq!(evaluations[0]["createdBy"], ADA.to_string());
        assert_eq!(evaluations[0]["prompt"]["id"], json!(one));
        assert_eq!(entities[1]["evaluations"], json!([]));
        for (entity, newest) in [(&entities[0], 2), (&entities[1], 1)] {
            let traces = entity["traces"].as_array().unwrap();
            assert_eq!(traces.len(), 3);
            assert_eq!(traces[0]["phoenixTraceId"], json!(format!("{newest:02x}").repeat(16)), "{entity}");
            assert_eq!((&traces[0]["executionTimeMs"], &traces[0]["tokensUsed"]["total"]), (&json!(100), &json!(15)));
            assert!(entity["performance"].as_array().unwrap().iter().any(|one| one["metricType"] == "latency_p50"));
        }
        assert_eq!(entities[0]["failed"], json!([]));
        assert_eq!(entities[1]["failed"][0]["error"], "broken");
        world.end().await;
    }
}

#[tokio::test]
async fn lists_are_paged_by_their_cursors() {
    for kind in Kind::ALL {
        let world = World::with(kind, identity(), &[]).await;
        let [one, _] = filled(&world).await;
        let query = "query($after: String, $prompt: ID) { traces(promptId: $prompt, first: 4, after: $after) { phoenixTraceId cursor } }";
        let (mut seen, mut after) = (Vec::new(), Value::Null);
        loop {
            let page = data(&world, &ada(), query, json!({ "after": after, "prompt": one })).await;
            let page = page["traces"].as_array().unwrap().clone();
            let Some(last) = page.last() else { break };
            after = last["cursor"].clone();
            seen.extend(page.iter().map(|trace| trace["phoenixTraceId"].as_str().unwrap().to_owned()));
        }
        let mut once = seen.clone();
        once.dedup();
        assert_eq!((seen.len(), once.len()), (6, 6), "{seen:?}");
        let all = data(&world, &ada(), "{ evaluations(status: completed) { name } traces { id } }", Value::Null).await;
        assert_eq!(all["traces"].as_array().unwrap().len(), 12);
        let bad = graph(&world, &ada(), "{ traces(after: \"x\") { id } }", Value::Null).await;
        assert!(bad.text.contains("is no cursor of this list"), "{}", bad.text);
        world.end().await;
    }
}

/// Questions that would cost too much, or are none, are refused whole (rows 81 to 86 of the bad inputs).
#[tokio::test]
async fn what_costs_too_much_is_refused_before_it_is_read() {
    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    let otherwise = std::cell::RefCell::new(Vec::new());
    let refused = async |body: Value, code: &str| {
        let answer = ask(&world, &ada(), "POST", "/graphql", &body).await;
        if answer.status != StatusCode::BAD_REQUEST {
            otherwise.borrow_mut().push(format!("{code}: {} {}", answer.status, answer.text));
        }
        let error = answer.json()["errors"][0].clone();
        if error["extensions"]["code"] != code {
            otherwise.borrow_mut().push(format!("{code}: {error}"));
        }
        assert!(answer.text.len() < 20_000, "{} bytes say what is wrong", answer.text.len());
    };
    let deep = format!(
        "{{ evaluations(first: 1) {} }}",
        "{ prompt { evaluations(first: 1) ".repeat(8) + "{ id }" + &" } }".repeat(8)
    );
    refused(json!({ "query": deep }), "DEPTH").await;
    refused(json!({ "query": format!("{{ a(x: {}1{}) }}", "[".repeat(10_000), "]".repeat(10_000)) }), "DEPTH").await;
    let aliases: String = (0..1_000).map(|n| format!("a{n}: traces(first: 200) {{ id }} ")).collect();
    refused(json!({ "query": format!("{{ {aliases} }}") }), "COMPLEXITY").await;
    let aliases: String = (0..300).map(|n| format!("a{n}: traces(first: 200) {{ id }} ")).collect();
    refused(json!({ "query": format!("{{ {aliases} }}") }), "COMPLEXITY").await;
    refused(
        json!({ "query": "{ evaluations(first: 200) { prompt { traces(first: 200) { id model status } } } }" }),
        "COMPLEXITY",
    )
    .await;
    refused(json!({ "query": "fragment A on Query { ...B } fragment B on Query { ...A } { ...A }" }), "DEPTH").await;
    let directives = format!("{{ traces(first: 1) {{ id {} }} }}", "@include(if: true) ".repeat(500));
    refused(json!({ "query": directives }), "BAD_REQUEST").await;
    refused(json!({ "query": "{ traces { id }" }), "BAD_REQUEST").await;
    refused(json!({ "query": "{ nothing }" }), "BAD_REQUEST").await;
    refused(json!({ "query": "{ traces(first: -1) { id } }" }), "BAD_REQUEST").await;
    refused(json!({ "query": "mutation { x }" }), "BAD_REQUEST").await;
    refused(
        json!({ "query": "query($p: ID!) { traces(promptId: $p) { id } }", "variables": { "p": ["x"] } }),
        "BAD_REQUEST",
    )
    .await;
    refused(json!({ "variables": {} }), "BAD_REQUEST").await;
    let many = vec![json!({ "__typename": "Prompt", "id": ADA.to_string() }); 1_001];
    let entities = "query($representations: [_Any!]!) { _entities(representations: $representations) { __typename } }";
    refused(json!({ "query": entities, "variables": { "representations": many } }), "BAD_REQUEST").await;
    let headers = [("authorization", ada()), ("content-type", "application/json".to_owned())];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let batch = world.ask("POST", "/graphql", &headers, r#"[{"query":"{traces{id}}"}]"#).await;
    assert_eq!(batch.status, StatusCode::BAD_REQUEST, "{}", batch.text);
    let form = world
        .ask("POST", "/graphql", &[headers[0], ("content-type", "text/plain")], r#"{"query":"{traces{id}}"}"#)
        .await;
    assert_eq!(form.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(ask(&world, &ada(), "GET", "/graphql", &Value::Null).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(otherwise.into_inner(), Vec::<String>::new());
    // A list is never longer than may be, whatever is asked.
    let long = data(&world, &ada(), "{ traces(first: 1000000000) { id } }", Value::Null).await;
    assert_eq!(long["traces"], json!([]));
    world.end().await;
}

#[tokio::test]
async fn a_field_asks_for_its_permission() {
    let flags = Flags { evaluations: Flag { enabled: false, rollout: 100 }, ..Flags::default() };
    let world = World::with_flags(Kind::Sqlite, identity(), &[], flags).await;
    let hidden = graph(&world, &admin(), "{ evaluations { id } }", Value::Null).await;
    assert!(hidden.text.contains("no such field here"), "{}", hidden.text);
    world.end().await;

    let world = World::with(Kind::Sqlite, identity(), &[]).await;
    let mut narrow = user(ADA, "ada", "member");
    narrow.permissions = Permissions::of(&[Permission::ReadTraces]);
    let both = graph(&world, &bearer(&narrow), "{ traces { id } evaluations { id } }", Value::Null).await;
    assert_eq!(both.status, StatusCode::OK);
    assert!(both.text.contains("not allowed"), "{}", both.text);
    // The structure of the schema is the administrator's; what a gateway composes is everyone's.
    let introspection = "{ __schema { types { name } } }";
    let structure = graph(&world, &ada(), introspection, Value::Null).await.json();
    assert_eq!(structure["data"]["__schema"], Value::Null, "{structure}");
    let structure = graph(&world, &admin(), introspection, Value::Null).await.json();
    assert!(structure["data"]["__schema"]["types"].as_array().unwrap().len() > 5, "{structure}");
    let sdl = data(&world, &ada(), "{ _service { sdl } }", Value::Null).await;
    let sdl = sdl["_service"]["sdl"].as_str().unwrap().to_owned();
    assert!(
        sdl.contains("type Prompt @key(fields: \"id\")") && sdl.contains("specs.apollo.dev/federation/v2"),
        "{sdl}"
    );
    // What is misspelt is not helped with.
    let near = graph(&world, &ada(), "{ trace { id } }", Value::Null).await;
    assert!(!near.text.contains("Did you mean"), "{}", near.text);
    let nobody = world.ask("POST", "/graphql", &[("content-type", "application/json")], "{}").await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    world.end().await;
}
