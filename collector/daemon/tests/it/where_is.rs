//! Where a span is, and what the log holds, asked of a stopped emberd and beside a running one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use emberd_model::TraceId;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::client::Client;
use super::ledger::{flip, forwarded, told, until};
use super::process::{Emberd, Home};
use super::sink::{self, Sink};

fn trace_hex(trace: u64) -> String {
    TraceId(sink::trace_id(trace)).to_string()
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

fn second(value: &Value) -> i64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no moment"));
    OffsetDateTime::parse(text, &Rfc3339).unwrap().unix_timestamp()
}

/// Sends a trace of two spans.
async fn send(emberd: &Emberd, trace: u64) {
    let spans = (0..2).map(|number| sink::span(trace, number)).collect();
    Client::connect(emberd).await.send_grpc(sink::request(Some("shop"), spans)).await.unwrap();
}

async fn stop(emberd: Emberd) {
    assert!(tokio::task::spawn_blocking(|| emberd.terminate()).await.unwrap().success());
}

/// Exit code, standard output, standard error.
fn ran(home: &Home, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = home.command(arguments).output().unwrap();
    let said = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), said(output.stdout), said(output.stderr))
}

/// Three traces, seconds apart, of which the second has a span that the endpoint refuses; a fourth while it is away.
struct Story {
    home: Home,
    /// When each trace was sent, and when it was done.
    times: Vec<(i64, i64)>,
}

impl Story {
    async fn told() -> (Self, Emberd) {
        let (mut home, sink) = (Home::new(), Sink::new());
        sink.is_forwarded_to_by(&mut home);
        sink.refuses(&["1/1"]);
        let emberd = home.start();
        let mut times = Vec::new();
        for trace in 0..3 {
            let begun = now();
            send(&emberd, trace).await;
            forwarded(&emberd, "sink").await;
            times.push((begun, now()));
            tokio::time::sleep(Duration::from_millis(2_100)).await;
        }
        sink.goes_away(true);
        let begun = now();
        send(&emberd, 3).await;
        times.push((begun, now()));
        emberd.recorded().await;
        (Self { home, times }, emberd)
    }

    /// All that must be said of the spans of these traces, whoever asks.
    fn check(&self) {
        let items = told(&self.home, &["quarantine", "list"]);
        let item = items[0]["id"].as_str().unwrap();
        for (trace, number) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)] {
            let told = told(&self.home, &["where", &sink::span_hex(trace, number)]);
            assert_eq!(told["log"].as_array().unwrap().len(), 1, "{told:#}");
            let span = &told["log"][0];
            assert_eq!(span["span"], sink::span_hex(trace, number));
            assert_eq!(
                (&span["trace"], &span["name"]),
                (&json!(trace_hex(trace)), &json!(format!("{trace}/{number}")))
            );
            assert_eq!(span["offset"], trace * 2 + number, "{told:#}");
            assert!(span["segment"].is_u64(), "{told:#}");
            let (begun, done) = self.times[trace as usize];
            let received = second(&span["received"]);
            assert!(begun <= received && received <= done, "{received} is not within {begun} and {done}: {told:#}");
            assert_eq!(span["consumers"]["recorder"]["state"], "passed", "{told:#}");

            let at_sink = &span["consumers"]["sink"];
            let state = match (trace, number) {
                (1, 1) => "quarantined",
                (3, _) => "pending",
                _ => "passed",
            };
            assert_eq!(at_sink["state"], state, "{told:#}");
            let is_aside = state == "quarantined";
            assert_eq!(at_sink["item"], if is_aside { json!(item) } else { Value::Null }, "{told:#}");
            assert_eq!(at_sink["reason"], if is_aside { json!("refused") } else { Value::Null }, "{told:#}");
            for key in ["sent", "verified"] {
                if state == "pending" {
                    assert_eq!(at_sink[key], Value::Null, "{told:#}");
                    continue;
                }
                let by = second(&at_sink[key]["by"]);
                assert!(begun <= by && by <= done, "{key} by {by}, but it was from {begun} to {done}: {told:#}");
                if trace > 0 {
                    let (before, after) = (self.times[trace as usize - 1], second(&at_sink[key]["after"]));
                    assert!(before.0 <= after && after < by, "{key} after {after}: {told:#}");
                }
            }
            assert_eq!(told["rows"].as_array().unwrap().len(), 1, "{told:#}");
            let row = &told["rows"][0];
            assert_eq!((&row["table"], &row["phoenix_trace_id"]), (&json!("prompt_traces"), &json!(trace_hex(trace))));
            assert_eq!(row["status"], "success", "{told:#}");
        }
        let of_trace = told(&self.home, &["where", &trace_hex(1)]);
        let names: Vec<_> = of_trace["log"].as_array().unwrap().iter().map(|span| span["name"].clone()).collect();
        assert_eq!(names, ["1/0", "1/1"]);

        let (code, page, _) = ran(&self.home, &["where", &trace_hex(1)]);
        assert_eq!(code, Some(0), "{page}");
        assert!(page.contains(&format!("span {} of trace {}, \"1/1\"", sink::span_hex(1, 1), trace_hex(1))), "{page}");
        assert!(
            page.contains("quarantined, sent by ") && page.contains(&format!("emberd quarantine show {item}")),
            "{page}"
        );
        assert!(page.contains("log        segment ") && page.contains("offset 3, received "), "{page}");
        assert!(page.contains(&format!("of prompt_traces: trace {}, success", trace_hex(1))), "{page}");
        let (code, page, _) = ran(&self.home, &["where", &sink::span_hex(3, 0)]);
        assert!(code == Some(0) && page.contains("sink       pending\n"), "{page}");

        for unknown in ["00000000000000ff", "000000000000000000000000000000ff"] {
            let (code, page, _) = ran(&self.home, &["where", unknown]);
            assert!(code == Some(1) && page.contains("not known here"), "{code:?} {page}");
            let (code, page, _) = ran(&self.home, &["where", unknown, "--json"]);
            let told: Value = serde_json::from_str(&page).unwrap();
            assert!(code == Some(1) && told == json!({ "log": [], "rows": [] }), "{code:?} {page}");
        }
        for malformed in [
            "",
            "12",
            "xyz0000000000000",
            "0123456789abcdef0",
            "-1",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ] {
            let (code, page, said) = ran(&self.home, &["where", malformed]);
            assert!(
                code == Some(2) && page.is_empty() && said.contains("error: "),
                "{malformed}: {code:?} {page} {said}"
            );
        }
    }
}

/// Of every span: where in the log, received when; at each consumer pending, passed or put aside, sent and done between which moments; and
/// its row. The same beside a running emberd, after a kill and a restart, and when it is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_found_and_its_way_told() {
    let (story, emberd) = Story::told().await;
    story.check();
    emberd.kill();
    story.check();
    let emberd = story.home.start();
    emberd.recorded().await;
    story.check();
    stop(emberd).await;
    story.check();
}

/// A span that was sent twice is there twice, and is one row.
#[tokio::test(flavor = "multi_thread")]
async fn every_copy_is_told_of() {
    let home = Home::new();
    let emberd = home.start();
    for _ in 0..2 {
        send(&emberd, 5).await;
    }
    emberd.recorded().await;
    let told = told(&home, &["where", &sink::span_hex(5, 1)]);
    let offsets: Vec<_> = told["log"].as_array().unwrap().iter().map(|span| span["offset"].clone()).collect();
    assert_eq!(offsets, [1, 3], "{told:#}");
    assert_eq!(told["rows"].as_array().unwrap().len(), 1, "{told:#}");
    stop(emberd).await;
}

/// A directory in which emberd never ran is said to be one, by every command that reads.
#[test]
fn an_empty_directory_is_no_ledger() {
    let home = Home::new();
    for arguments in [
        &["where", "00000000000000ff"][..],
        &["ledger", "--check"],
        &["quarantine", "list"],
        &["log", "inspect"],
        &["log", "verify"],
    ] {
        let (code, page, said) = ran(&home, arguments);
        assert!(
            code == Some(1) && page.is_empty() && said.contains("no emberd ever ran in"),
            "{arguments:?}: {page} {said}"
        );
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "asking makes nothing");
}

fn log_is_whole(home: &Home, spans: u64) {
    let inspected = told(home, &["log", "inspect"]);
    let verified = told(home, &["log", "verify"]);
    let segments = verified["segments"].as_array().unwrap();
    let written: Vec<&Value> = segments.iter().filter(|segment| segment["state"] == "written").collect();
    assert!(written.len() > 1, "{verified:#}");
    assert_eq!(written.iter().map(|segment| segment["spans"].as_u64().unwrap()).sum::<u64>(), spans, "{verified:#}");
    assert_eq!(written[0]["first_span"], 0);
    for pair in written.windows(2) {
        assert_eq!(pair[0]["end"], pair[1]["first_span"], "{verified:#}");
    }
    assert_eq!(written.last().unwrap()["end"], spans);
    assert_eq!((&verified["damaged_spans"], &verified["unknown_files"]), (&json!(0), &json!([])), "{verified:#}");
    for (a, b) in inspected["segments"].as_array().unwrap().iter().zip(segments) {
        assert_eq!((&a["segment"], &a["state"]), (&b["segment"], &b["state"]));
    }
    let (code, page, _) = ran(home, &["log", "verify"]);
    assert!(code == Some(0) && page.ends_with(&format!("{spans} spans read, 0 damaged\n")), "{page}");
    let (code, page, _) = ran(home, &["log", "inspect"]);
    assert!(code == Some(0) && page.contains("from span 0, begun "), "{page}");
}

/// The log's segments are listed and checked beside a running emberd and without one; a flipped bit is found, told with its spans and its
/// place, and costs its record alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_inspected_and_verified() {
    let mut home = Home::new();
    home.set("EMBERD_LOG_SEGMENT", "4MiB").set("EMBERD_ARCHIVE_ENABLED", "false");
    let emberd = home.start();
    let mut client = Client::connect(&emberd).await;
    for trace in 0..40 {
        let mut span = sink::span(trace, 0);
        span.attributes.push(super::made::text("input.value", &"y".repeat(256 << 10)));
        client.send_grpc(sink::request(None, vec![span, sink::span(trace, 1), sink::span(trace, 2)])).await.unwrap();
    }
    log_is_whole(&home, 120);
    emberd.recorded().await;
    emberd.kill();
    log_is_whole(&home, 120);

    flip(&home, b"5/1");
    for running in [false, true] {
        let emberd = running.then(|| home.start());
        let (code, page, _) = ran(&home, &["log", "verify"]);
        assert_eq!(code, Some(1), "{page}");
        assert!(page.contains("DAMAGED at byte ") && page.contains("spans 15 to 18"), "{page}");
        assert!(page.ends_with("117 spans read, 3 damaged\n"), "{page}");
        let output = home.command(&["log", "verify", "--json"]).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.code() == Some(1) && told["damaged_spans"] == 3, "{told:#}");
        // Headers alone do not show it.
        assert_eq!(ran(&home, &["log", "inspect"]).0, Some(0));
        // Everyone passed it before.
        home.ledger_is_right();
        if let Some(emberd) = emberd {
            until("it goes on", async || emberd.get("/api/status").await["log"]["head"] == 120).await;
            stop(emberd).await;
        }
    }
}
