//! The forwarder and the real Phoenix.
//!
//! One Phoenix serves all stories, one after the other: it takes 20 seconds to start. It is the one in EMBERD_PHOENIX, by
//! default `~/.cache/emberd/phoenix`, where `make test` puts it.

#![allow(clippy::unwrap_used, reason = "a test fails where it must")]

mod hostile;
mod place;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use emberd_consumers::forwarder::{Endpoint, PhoenixConfig};
use emberd_model::wire;
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use self::hostile::{Ids, attribute, llm_span, request, text};
use self::place::{Place, World, library};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_phoenix() {
    let mut world = World::start().await;
    real_exports_arrive(&world).await;
    what_phoenix_cannot_derive_is_there(&world).await;
    hostile_spans_arrive_or_are_put_aside(&world).await;
    a_span_id_of_another_trace_is_put_aside(&world).await;
    a_span_too_large_for_grpc_arrives(&world).await;
    nothing_is_lost_when_phoenix_is_killed(&mut world).await;
    world.end().await;
}

/// Every export of a real SDK is in Phoenix, span by span, under its own trace, over both of Phoenix's doors.
async fn real_exports_arrive(world: &World) {
    let place = Place::new(world, Endpoint::Grpc(world.grpc())).await;
    for (_, body) in library() {
        place.append(body).await;
    }
    place.all_is_verified("real exports").await;
    for (name, body) in library() {
        assert_eq!(world.missing(&body).await, Vec::<String>::new(), "{name}");
    }
    assert_eq!(place.end().await, []);

    // The same once more over HTTP: Phoenix ignores spans that it has, and reading back does not mind.
    let place = Place::new(world, Endpoint::Http(format!("{}/v1/traces", world.http()))).await;
    for (_, body) in library() {
        place.append(body).await;
    }
    place.all_is_verified("real exports over http").await;
    assert_eq!(place.end().await, []);
}

/// A call recorded in the older convention shows its tokens, cost, messages and session, which Phoenix alone does not read.
async fn what_phoenix_cannot_derive_is_there(world: &World) {
    let ids = Ids::new();
    let attributes = vec![
        text("gen_ai.system", "openai"),
        text("gen_ai.request.model", "gpt-4o"),
        text("llm.request.type", "chat"),
        text("gen_ai.prompt.0.role", "user"),
        text("gen_ai.prompt.0.content", "weather?"),
        text("gen_ai.completion.0.content", "sunny"),
        attribute("gen_ai.usage.prompt_tokens", Value::IntValue(100)),
        attribute("gen_ai.usage.completion_tokens", Value::IntValue(50)),
        text("traceloop.association.properties.session_id", "session-of-old"),
    ];
    let span = ids.span("legacy", attributes);
    let id = hostile::hex(&span.span_id);
    let place = Place::new(world, Endpoint::Grpc(world.grpc())).await;
    place.append(request(vec![], vec![span])).await;
    place.all_is_verified("a span of an older convention").await;
    place.end().await;
    let query = format!(
        "{{s:getSpanByOtelId(spanId:\"{id}\"){{spanKind tokenCountTotal input{{value}} output{{value}} \
         costSummary{{total{{cost}}}} trace{{session{{sessionId}}}} attributes}}}}"
    );
    let answer = world.graphql(&query).await;
    let span = &answer["s"];
    assert_eq!(span["spanKind"], "llm", "{answer}");
    assert_eq!(span["tokenCountTotal"], 150, "{answer}");
    assert_eq!((&span["input"]["value"], &span["output"]["value"]), (&"weather?".into(), &"sunny".into()), "{answer}");
    assert_eq!(span["costSummary"]["total"]["cost"], 0.000_75, "{answer}");
    assert_eq!(span["trace"]["session"]["sessionId"], "session-of-old", "{answer}");
    assert!(span["attributes"].as_str().unwrap().contains("\"input_messages\": [{\"message\""), "{answer}");
}

/// Each span that Phoenix would drop, choke on or stumble over is in Phoenix, and so are its neighbours: over gRPC as flagged
/// by the walk, and over HTTP without any flag, where only its absence tells.
async fn hostile_spans_arrive_or_are_put_aside(world: &World) {
    for (endpoint, flagged) in
        [(Endpoint::Grpc(world.grpc()), true), (Endpoint::Http(format!("{}/v1/traces", world.http())), false)]
    {
        let place = Place::new(world, endpoint.clone()).await;
        let cases = hostile::cases();
        for (_, body) in &cases {
            place.append_flagged(body.clone(), flagged.then(|| hostile::flags(body))).await;
        }
        // Something stored later tells a span that is dropped from one that is late.
        let idle = place.keep_sending(|| request(vec![], vec![llm_span(&Ids::new(), 0)]));
        place.is_verified_to(place.appended(), "hostile spans").await;
        idle.stop().await;
        place.all_is_verified("hostile spans").await;
        for (name, body) in &cases {
            assert_eq!(world.missing(body).await, Vec::<String>::new(), "{name} over {endpoint:?}");
        }
        assert_eq!(place.end().await, [], "over {endpoint:?}");
    }
    // One span kind that is no text would make this a 500.
    let listed = world.get("/v1/projects/default/spans?limit=1000").await;
    assert!(listed.is_ok(), "{listed:?}");
}

/// Phoenix keeps the first of two spans with one id, whatever their traces; the second is in quarantine, and nobody loops.
async fn a_span_id_of_another_trace_is_put_aside(world: &World) {
    let (first, second, third) = (Ids::new(), Ids::new(), Ids::new());
    let mut twin = llm_span(&second, 0);
    twin.span_id = llm_span(&first, 0).span_id;
    let mut elsewhere = llm_span(&third, 0);
    elsewhere.span_id = llm_span(&first, 1).span_id;
    let place = Place::new(world, Endpoint::Grpc(world.grpc())).await;
    place.append(request(vec![], vec![llm_span(&first, 0), llm_span(&first, 1)])).await;
    place.append(request(vec![], vec![twin])).await;
    place.append(request(vec![text("openinference.project.name", "another")], vec![elsewhere])).await;
    let later = place.keep_sending(|| request(vec![], vec![llm_span(&Ids::new(), 0)]));
    place.is_verified_to(4, "a span id of another trace").await;
    later.stop().await;
    let aside = place.end().await;
    let told: Vec<_> = aside.iter().map(|item| (item.offset, &item.reason[..])).collect();
    assert_eq!(told, [(2, "phoenix_id_collision"), (3, "phoenix_id_collision")]);
}

/// Phoenix takes 4 MiB over gRPC and any size over HTTP: a single larger span takes the other door.
async fn a_span_too_large_for_grpc_arrives(world: &World) {
    let ids = Ids::new();
    let large = ids.span("large", vec![text("input.value", &"long ".repeat(1_200_000))]);
    let body = request(vec![], vec![llm_span(&ids, 1), large, llm_span(&ids, 2)]);
    assert!(body.len() > 5 << 20);
    let place = Place::new(world, Endpoint::Grpc(world.grpc())).await;
    place.append(body.clone()).await;
    place.all_is_verified("a large span").await;
    assert_eq!(world.missing(&body).await, Vec::<String>::new());
    assert_eq!(place.end().await, []);
}

/// Killed while it holds spans that it has acknowledged, and dead for a while: all of them are there in the end, with those that
/// came meanwhile; and nobody but the forwarder noticed.
async fn nothing_is_lost_when_phoenix_is_killed(world: &mut World) {
    const SPANS: u64 = 1_200;
    let config = PhoenixConfig { unverified_spans_max: 600, ..PhoenixConfig::at(&world.http()) };
    let place = Place::with(world, Endpoint::Grpc(world.grpc()), config).await;
    let mut bodies: Vec<Bytes> = Vec::new();
    for _ in 0..SPANS / 20 {
        let ids = Ids::new();
        let body = request(vec![], (0..20).map(|index| llm_span(&ids, index)).collect());
        place.append(body.clone()).await;
        bodies.push(body);
    }
    place
        .until("some are acknowledged and not stored", |ledger| {
            let (sent, verified) = (ledger["sent"].as_u64(), ledger["verified"].as_u64());
            verified > Some(0) && sent > verified.map(|verified| verified + 150)
        })
        .await;
    let before = place.ledger();
    world.kill().await;
    let ids = Ids::new();
    let meanwhile = request(vec![], (0..20).map(|index| llm_span(&ids, index)).collect());
    place.append(meanwhile.clone()).await;
    bodies.push(meanwhile);
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.restart().await;
    place.all_is_verified("spans that a killed phoenix held").await;
    let after = place.ledger();
    println!("killed with {} acknowledged and {} verified; in the end {after}", before["sent"], before["verified"]);
    assert!(after["resent"].as_u64() > Some(0), "phoenix lost nothing: it was not killed in time");
    for body in &bodies {
        assert_eq!(world.missing(body).await, Vec::<String>::new());
    }
    let distinct: BTreeSet<_> =
        bodies.iter().flat_map(|body| wire::spans(body).map(|found| found.span.span_id)).collect();
    assert_eq!(distinct.len() as u64, SPANS + 20);
    assert_eq!(place.end().await, []);
}
