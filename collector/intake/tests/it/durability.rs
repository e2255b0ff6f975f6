//! Never OK for what is not durable.

use std::sync::Arc;

use emberd_log::{AppendError, SegmentId};
use futures_util::FutureExt;

use crate::client::{Client, Version, framed, grpc, post, whole};
use crate::export::{JSON, spans};
use crate::house::{House, in_time};
use crate::shelf::Shelf;

/// While the log is silent, so are the doors, though they answer others on the same connections; once it has spoken, all hear it.
#[tokio::test]
async fn no_answer_comes_before_the_log_has_spoken() {
    let shelf = Shelf::closed();
    let house = House::open(shelf.clone());
    let mut grpc_client = Client::connect(house.at.grpc, Version::Two).await;
    let mut http_client = Client::connect(house.at.http, Version::Two).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(grpc_client.begin(grpc(whole(framed(0, &spans(2))))).boxed());
        waiting.push(http_client.begin(post("/v1/traces", "application/x-protobuf", whole(spans(2)))).boxed());
        waiting.push(http_client.begin(post("/v1/traces", "application/json", whole(JSON))).boxed());
    }
    // Each notes, at the moment of its answer, whether the log had let go by then.
    let answers = waiting.into_iter().map(|answer| {
        let shelf = Arc::clone(&shelf);
        answer.map(move |answer| (answer.unwrap(), shelf.has_let_go()))
    });
    let mut answers = tokio::task::JoinSet::from_iter(answers);
    in_time(shelf.came(60)).await;
    // An answer that was sent too early would arrive before these, for they share its connection.
    for _ in 0..3 {
        let health = post("/grpc.health.v1.Health/Check", "application/grpc", whole(framed(0, b"")));
        assert_eq!(grpc_client.send(health).await.unwrap().code(), 0);
        let nothing = post("/v1/traces", "application/x-protobuf", whole(""));
        assert_eq!(http_client.send(nothing).await.unwrap().status, 200);
    }
    assert!(answers.try_join_next().is_none(), "an answer came while the log was silent");
    assert_eq!(house.counters.snapshot().accepted_spans(), 0);
    shelf.let_go();
    while let Some(answered) = in_time(answers.join_next()).await {
        let (answer, was_durable) = answered.unwrap();
        assert_eq!(answer.status, 200);
        assert!(was_durable);
    }
    assert_eq!(house.counters.snapshot().accepted_spans(), shelf.spans());
    assert_eq!(shelf.spans(), 20 * (2 + 2 + 1));
    house.stop().await.unwrap();
}

/// What the log refuses, clients hear: to be sent again or not, and when.
#[tokio::test]
async fn clients_hear_what_the_log_says() {
    let disk = || AppendError::Disk { segment: SegmentId(3), source: Arc::new(std::io::Error::other("broken")) };
    let cases: Vec<(AppendError, i32, u16, bool, &str)> = vec![
        (
            AppendError::BudgetFull { used_bytes: 9, budget_bytes: 10 },
            8,
            429,
            true,
            "disk budget is full: 9 of 10 bytes",
        ),
        (AppendError::Stopping, 14, 503, true, "stopping"),
        (disk(), 14, 503, true, "the log cannot write"),
        (AppendError::TooLarge { bytes: 9, max_bytes: 8 }, 8, 413, false, "more than 8 bytes"),
    ];
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let mut grpc_client = Client::connect(house.at.grpc, Version::Two).await;
    let mut http_client = Client::connect(house.at.http, Version::Two).await;
    for (error, code, status, retryable, says) in cases {
        let what = error.to_string();
        shelf.refuse(Some(error));
        let answer = grpc_client.call(&spans(3)).await;
        assert_eq!((answer.code(), answer.is_retryable()), (code, retryable), "{what}");
        assert_eq!(answer.details().has("RetryInfo"), retryable, "{what}");
        assert!(answer.details().message.contains(says), "{what}");
        for (media, body) in [("application/x-protobuf", spans(3)), ("application/json", JSON.into())] {
            let answer = http_client.send(post("/v1/traces", media, whole(body))).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.is_retryable()), (status, retryable), "{what}");
            assert_eq!(answer.header("content-type"), Some(media));
            let body = answer.status_body();
            assert!(body.code == code && body.message.contains(says), "{what}: {body:?}");
            assert_eq!(body.has("RetryInfo"), retryable, "{what}");
            let seconds = answer.header("retry-after").map(|after| after.parse::<u64>().unwrap());
            assert_eq!(seconds.is_some_and(|seconds| seconds >= 1), retryable, "{what}");
        }
    }
    shelf.refuse(None);
    assert_eq!(grpc_client.call(&spans(3)).await.code(), 0, "what was to be sent again is taken");
    let counted = house.counters.snapshot();
    assert_eq!((counted.refused_spans(), counted.accepted_spans()), (4 * (3 + 3 + 1), 3));
    house.stop().await.unwrap();
}
