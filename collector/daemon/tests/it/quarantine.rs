//! Spans that an endpoint refuses: they are put aside, shown, tried again and given up by hand, and the ledger moves with each of them
//! once.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Value, json};

use super::client::Client;
use super::ledger::{forwarded, told, until};
use super::process::{Emberd, Home};
use super::sink::{self, Sink};

/// An emberd before an endpoint that refuses the second span of some traces.
struct Story {
    home: Home,
    sink: Sink,
    bad: Vec<String>,
}

impl Story {
    fn new(bad: &[u64]) -> Self {
        let (mut home, sink) = (Home::new(), Sink::new());
        sink.is_forwarded_to_by(&mut home);
        let story = Self { home, sink, bad: bad.iter().map(|trace| format!("{trace}/1")).collect() };
        story.ill();
        story
    }

    fn ill(&self) {
        self.sink.refuses(&self.bad.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn healed(&self) {
        self.sink.refuses(&[]);
    }

    /// Sends traces of three spans each.
    async fn send(&self, emberd: &Emberd, traces: std::ops::Range<u64>) {
        let mut client = Client::connect(emberd).await;
        for trace in traces {
            let spans = (0..3).map(|number| sink::span(trace, number)).collect();
            client.send_grpc(sink::request(Some("shop"), spans)).await.unwrap();
        }
    }

    fn list(&self) -> Vec<Value> {
        told(&self.home, &["quarantine", "list"]).as_array().unwrap().clone()
    }

    /// The name of the item that holds this trace's second span.
    fn item(&self, trace: u64) -> String {
        let id = sink::span_hex(trace, 1);
        let list = self.list();
        let item = list.iter().find(|item| item["span_ids"] == json!([id]));
        item.unwrap_or_else(|| panic!("no item of {id}: {list:#?}"))["id"].as_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str], code: i32) -> Vec<u8> {
        let output = self.home.command(arguments).output().unwrap();
        let said =
            format!("{:?} {:?}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        output.stdout
    }

    fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.command(arguments, 0)).unwrap()
    }

    /// Done, quarantined and shed of the forwarder, once every sum is right.
    fn sums(&self) -> [u64; 3] {
        let ledger = told(&self.home, &["ledger", "--check"]);
        ["done", "quarantined", "shed"].map(|word| ledger["consumers"]["sink"][word].as_u64().unwrap())
    }

    /// The ledger's quarantined spans are those that the quarantine holds.
    async fn comes_to(&self, sums: [u64; 3]) {
        until(&format!("the sums are {sums:?}"), async || self.sums() == sums && self.list().len() as u64 == sums[1])
            .await;
    }
}

async fn stop(emberd: Emberd) {
    assert!(tokio::task::spawn_blocking(|| emberd.terminate()).await.unwrap().success());
}

/// What is refused is put aside alone, and can be looked at; tried again before the endpoint is healed it stays, with the new answer; after
/// that it is delivered and gone; what is given up counts as shed by hand. Sums and metrics follow.
#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_shown_tried_again_and_given_up() {
    let story = Story::new(&[2, 5, 7]);
    let emberd = story.home.start();
    story.send(&emberd, 0..10).await;
    forwarded(&emberd, "sink").await;
    story.comes_to([27, 3, 0]).await;
    let (second, fifth, seventh) = (story.item(2), story.item(5), story.item(7));

    let list = story.list();
    assert_eq!(list.iter().map(|item| item["id"].as_str().unwrap()).collect::<Vec<_>>(), [&second, &fifth, &seventh]);
    let item = &list[0];
    assert_eq!((&item["consumer"], &item["reason"], &item["spans"]), (&json!("sink"), &json!("refused"), &json!(1)));
    assert_eq!((&item["offset"], &item["retries"]), (&json!(2 * 3 + 1), &json!(0)), "{item:#}");
    assert_eq!(item["traces"], json!([emberd_model::TraceId(sink::trace_id(2)).to_string()]));
    let text = story.text(&["quarantine", "list", "--consumer", "sink"]);
    assert!(
        text.contains(&fifth) && text.contains("1 spans  refused") && text.ends_with("3 items, 3 spans\n"),
        "{text}"
    );
    assert!(story.text(&["quarantine", "list", "--consumer", "recorder"]).ends_with("0 items, 0 spans\n"));
    let shown: Value = serde_json::from_str(&story.text(&["quarantine", "show", &second])).unwrap();
    assert_eq!(shown["span_ids"], item["span_ids"]);
    let body = story.command(&["quarantine", "show", &second, "--body"], 0);
    let spans = sink::spans_of(ExportTraceServiceRequest::decode(&*body).unwrap());
    assert_eq!(spans, [sink::span(2, 1)], "the spans as they came");
    for arguments in [["show", "sink/none"], ["retry", "sink/none"], ["drop", "nobody"]] {
        story.command(&["quarantine", arguments[0], arguments[1]], 1);
    }

    // Not healed yet.
    story.text(&["quarantine", "retry", &second]);
    until("it was tried again", async || story.list()[0]["retries"] == 1).await;
    let item = story.list()[0].clone();
    assert!(item["id"] == *second && item["answer"].as_str().unwrap().starts_with("tried again"), "{item:#}");
    assert!(story.text(&["quarantine", "list"]).contains("tried again 1 times"));
    story.comes_to([27, 3, 0]).await;
    assert_eq!(story.sink.taken_times("2/1"), 0);

    story.text(&["quarantine", "drop", &seventh]);
    story.comes_to([27, 2, 1]).await;
    story.healed();
    story.text(&["quarantine", "retry", &second]);
    story.comes_to([28, 1, 1]).await;
    assert_eq!((story.sink.taken_times("2/1"), story.sink.taken_times("7/1")), (1, 0));
    assert_eq!(story.list()[0]["id"], *fifth);
    story.text(&["quarantine", "retry", "--all", "--consumer", "sink"]);
    story.comes_to([29, 0, 1]).await;
    let ledger = told(&story.home, &["ledger"]);
    assert_eq!(ledger["consumers"]["sink"]["reasons"]["shed"], json!({ "dropped_by_hand": 1 }), "{ledger:#}");
    // Nothing is left of it.
    let files: Vec<_> = std::fs::read_dir(story.home.path().join("quarantine/sink")).unwrap().collect();
    assert!(files.is_empty(), "{files:?}");
    story.send(&emberd, 10..12).await;
    forwarded(&emberd, "sink").await;
    emberd.sums_are_right(&story.home).await;
    stop(emberd).await;
    assert_eq!(story.sums(), [35, 0, 1]);
}

/// Decisions need no daemon: they are done when emberd runs again. The last one counts.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_wait_for_the_next_start() {
    let story = Story::new(&[1, 2, 3]);
    let emberd = story.home.start();
    story.send(&emberd, 0..4).await;
    forwarded(&emberd, "sink").await;
    stop(emberd).await;
    assert_eq!(story.sums(), [9, 3, 0]);
    story.healed();
    story.text(&["quarantine", "retry", &story.item(1)]);
    story.text(&["quarantine", "drop", &story.item(2)]);
    story.text(&["quarantine", "drop", &story.item(3)]);
    story.text(&["quarantine", "retry", &story.item(3)]);
    assert_eq!(story.sums(), [9, 3, 0], "nothing is done yet");
    let emberd = story.home.start();
    story.comes_to([11, 0, 1]).await;
    let taken = |name| story.sink.taken_times(name);
    assert_eq!((taken("1/1"), taken("2/1"), taken("3/1")), (1, 0, 1));
    stop(emberd).await;
}

/// emberd is killed between decision and end, again and again and at many moments: each item is booked once, and what the quarantine holds
/// is what the ledger says that it holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_decision_and_end_counts_once() {
    let bad: Vec<u64> = (0..24).collect();
    let story = Story::new(&bad);
    let emberd = story.home.start();
    story.send(&emberd, 0..24).await;
    forwarded(&emberd, "sink").await;
    emberd.kill();
    story.comes_to([48, 24, 0]).await;
    story.healed();
    for round in 0..12 {
        let emberd = story.home.start();
        let items: Vec<String> = story.list().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        for (item, decision) in items.iter().zip(["retry", "drop"]) {
            // What was decided before the last kill is done meanwhile: it may be gone.
            let code = story.home.command(&["quarantine", decision, item]).output().unwrap().status.code();
            assert!(matches!(code, Some(0 | 1)), "{code:?}");
        }
        tokio::time::sleep(std::time::Duration::from_millis(round * 97)).await;
        emberd.kill();
        let [done, quarantined, shed] = story.sums();
        assert_eq!(done + quarantined + shed, 72, "in round {round}");
        // A killed one's item may still be there, although it is booked: it goes with the next start.
        assert!(story.list().len() as u64 - quarantined <= 1, "in round {round}");
    }
    let emberd = story.home.start();
    story.text(&["quarantine", "retry", "--all"]);
    until("the quarantine is empty", async || story.list().is_empty()).await;
    let [done, quarantined, shed] = story.sums();
    assert_eq!((done + shed, quarantined), (72, 0));
    // What counts as done was delivered, and what was given up was not.
    let delivered = bad.iter().filter(|trace| story.sink.taken_times(&format!("{trace}/1")) > 0).count() as u64;
    assert!(delivered + shed >= 24 && shed > 0, "{delivered} delivered, {shed} given up");
    emberd.sums_are_right(&story.home).await;
    stop(emberd).await;
}

/// emberd is killed while spans before and behind the item are under way, so that the item is there before its cursor has passed it, and
/// someone decides about it at once: it is booked once all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_was_not_booked_yet_is_booked_once() {
    for (decision, healed) in [("retry", true), ("retry", false), ("drop", true), ("drop", false), ("none", true)] {
        let story = Story::new(&[0]);
        let emberd = story.home.start();
        story.send(&emberd, 0..1).await;
        forwarded(&emberd, "sink").await;
        stop(emberd).await;
        // The item is on disk and the step that books it is not, as a kill between the two leaves it.
        std::fs::remove_file(story.home.path().join("cursors/sink.journal")).unwrap();
        if healed {
            story.healed();
        }
        if decision != "none" {
            story.text(&["quarantine", decision, &story.item(0)]);
        }
        let emberd = story.home.start();
        story.send(&emberd, 1..3).await;
        forwarded(&emberd, "sink").await;
        // Long enough for a decision to be done.
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
        if decision == "none" {
            // Delivered since, and still here: it is let go without being booked.
            story.text(&["quarantine", "drop", "--all"]);
            until("it is gone", async || story.list().is_empty()).await;
            assert_eq!(story.sums(), [9, 0, 0]);
        }
        let ([done, quarantined, shed], held) = (story.sums(), story.list().len() as u64);
        let what =
            format!("{decision}, healed {healed}: {done} done, {quarantined} quarantined, {shed} shed, {held} held");
        assert_eq!((done + quarantined + shed, quarantined), (9, held), "{what}");
        emberd.sums_are_right(&story.home).await;
        stop(emberd).await;
    }
}
