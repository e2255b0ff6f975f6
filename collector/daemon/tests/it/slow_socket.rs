//! A dashboard that does not read is left behind and ended; those beside it hear everything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::process::{Emberd, Home, PATIENCE};

/// Traces sent, in requests of so many: more than what lies between a program that does not read and one that writes.
const TRACES: usize = 6_000;
const A_REQUEST: usize = 100;

/// Connects as socket.io-client does; `read_bytes`: what the system keeps for this end.
async fn connected(emberd: &Emberd, read_bytes: Option<u32>) -> WebSocketStream<TcpStream> {
    let host = emberd.api().trim_start_matches("http://").to_owned();
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(bytes) = read_bytes {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    let stream = socket.connect(host.parse().unwrap()).await.unwrap();
    let url = format!("ws://{host}/socket.io/?EIO=4&transport=websocket");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    assert!(matches!(said(&mut socket).await, Some(text) if text.starts_with("0{")));
    socket.send(Message::text("40{}")).await.unwrap();
    assert!(matches!(said(&mut socket).await, Some(text) if text.starts_with("40{")));
    socket
}

/// What comes next, pings answered; none: it is over.
async fn said(socket: &mut WebSocketStream<TcpStream>) -> Option<String> {
    loop {
        match socket.next().await?.ok()? {
            Message::Text(text) if text.as_str() == "2" => socket.send(Message::text("3")).await.ok()?,
            Message::Text(text) => return Some(text.to_string()),
            _ => {}
        }
    }
}

fn request(first: usize) -> Value {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let model = "m".repeat(1_000);
    let spans: Vec<Value> = (first..first + A_REQUEST)
        .map(|nr| {
            json!({
                "traceId": format!("{:032x}", nr + 1), "spanId": format!("{:016x}", nr + 1), "name": "chat",
                "startTimeUnixNano": "1795264000000000000", "endTimeUnixNano": "1795264000250000000",
                "attributes": [text("openinference.span.kind", "LLM"), text("llm.model_name", &model)],
            })
        })
        .collect();
    json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] })
}

async fn sockets(emberd: &Emberd) -> Option<u64> {
    let metrics = reqwest::get(format!("{}/metrics", emberd.api())).await.ok()?.text().await.ok()?;
    metrics.lines().find_map(|line| line.strip_prefix("emberd_sockets ")?.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_does_not_read_is_left_behind() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut home = Home::new();
    home.set("EMBERD_STORE_URL", "sqlite");
    let emberd = home.start();
    let mut slow = connected(&emberd, Some(4_096)).await;
    let mut quick = connected(&emberd, None).await;
    assert_eq!(sockets(&emberd).await, Some(2));
    let mut hearing = tokio::task::JoinSet::new();
    hearing.spawn(async move {
        let (mut heard, mut missed) = (BTreeSet::new(), 0);
        while heard.len() + missed < TRACES {
            let text = said(&mut quick).await.expect("the quick one is not ended");
            let event: Value = serde_json::from_str(text.strip_prefix("42").unwrap()).unwrap();
            match event[0].as_str().unwrap() {
                "trace:complete" => assert!(heard.insert(event[1]["traceId"].to_string()), "{event}"),
                "lagged" => missed += event[1]["missed"].as_u64().expect("how many were skipped is known") as usize,
                other => panic!("{other}"),
            }
        }
        (heard.len(), quick)
    });
    let client = reqwest::Client::new();
    for first in (0..TRACES).step_by(A_REQUEST) {
        let answer = client.post(emberd.http()).json(&request(first)).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        // Within what is told in a second.
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    let (heard, mut quick) =
        tokio::time::timeout(PATIENCE, hearing.join_next()).await.expect("all is told").unwrap().unwrap();
    let since = Instant::now();
    while sockets(&emberd).await != Some(1) {
        assert!(since.elapsed() < PATIENCE, "the slow one is held for ever");
        // The quick one's pings are answered.
        let _ = tokio::time::timeout(Duration::from_millis(200), said(&mut quick)).await;
    }
    let mut late = 0;
    while let Ok(Some(text)) = tokio::time::timeout(PATIENCE, said(&mut slow)).await {
        late += usize::from(text.contains("trace:complete"));
    }
    eprintln!("of {TRACES} events the quick socket heard {heard}, the slow one {late}");
    assert!(heard > TRACES / 2 && late < heard, "{heard} {late}");
    emberd.terminate();
}
