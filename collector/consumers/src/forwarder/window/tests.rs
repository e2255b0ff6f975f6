//! A Phoenix is played: it acknowledges into memory, stores in that order, drops what it is told to, and forgets when it ends.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::forwarder::tests::part;

const SECOND: Duration = Duration::from_secs(1);

struct Played {
    window: Window,
    now: Instant,
    queue: VecDeque<(SpanId, TraceId)>,
    stored: HashMap<SpanId, TraceId>,
    drops: BTreeSet<u64>,
    breaks: u64,
    next: u64,
    /// Spans that were put aside, by number.
    aside: BTreeMap<u64, &'static str>,
    cursor: Offset,
    sends: usize,
}

fn number(span: SpanId) -> u64 {
    u64::from_be_bytes(span.0) - 1
}

impl Played {
    fn new(drops: impl IntoIterator<Item = u64>) -> Self {
        Self {
            window: Window::new(2 * SECOND, 60 * SECOND),
            now: Instant::now(),
            queue: VecDeque::new(),
            stored: HashMap::new(),
            drops: drops.into_iter().collect(),
            breaks: 0,
            next: 0,
            aside: BTreeMap::new(),
            cursor: Offset(0),
            sends: 0,
        }
    }

    fn acknowledge(&mut self, load: &Load) {
        self.sends += 1;
        let ids = load.parts.iter().flat_map(|part| part.ids().collect::<Vec<_>>());
        self.queue.extend(ids.map(|(trace, span)| (span, trace)));
    }

    fn send(&mut self, spans: u64) {
        let parcel = Parcel::new(part(self.next, spans).into(), Offset(self.next + spans), Tally::default());
        self.next += spans;
        self.acknowledge(&parcel.load().clone());
        self.window.sent(parcel, &[], self.breaks, self.now);
    }

    fn store(&mut self, spans: usize) {
        for (span, trace) in self.queue.drain(..spans.min(self.queue.len())) {
            if !self.drops.contains(&number(span)) {
                self.stored.entry(span).or_insert(trace);
            }
        }
    }

    fn restart(&mut self) {
        self.queue.clear();
        self.breaks += 1;
    }

    fn put_aside(&mut self, at: Ref, reason: &'static str) {
        let load = self.window.alone(at).unwrap();
        let (_, span) = load.parts[0].ids().next().unwrap();
        assert_eq!(load.parts[0].first, Offset(number(span)), "its offset is not known");
        self.aside.insert(number(span), reason);
        self.window.settle(at, Fate::Quarantined(Reason::new(reason)));
    }

    /// Looks, as the forwarder does, and sends again what is missing.
    fn look(&mut self, after: Duration) -> Seen {
        self.now += after;
        let wanted = self.window.wanted(500, self.now);
        let seen = self.window.seen(&wanted, &self.stored.clone(), self.breaks, self.now);
        for at in &seen.collided {
            self.put_aside(*at, "collided");
        }
        let mut again = seen.lost.clone();
        for at in &seen.missing {
            if self.window.blame(*at) { self.put_aside(*at, "dropped") } else { again.push(*at) }
        }
        for (load, spans) in self.window.again(again, 256, 1 << 20) {
            self.acknowledge(&load);
            self.window.sent_again(&spans, &[], self.breaks, self.now);
        }
        if let Some(cursor) = self.window.settled_to() {
            let (cursor, tally) = cursor;
            assert!(cursor > self.cursor);
            assert_eq!(tally.spans() as u64, cursor.since(self.cursor), "{tally:?}");
            self.cursor = cursor;
        }
        for number in 0..self.cursor.0 {
            let id = SpanId((number + 1).to_be_bytes());
            assert!(self.stored.contains_key(&id) || self.aside.contains_key(&number), "the cursor passed {number}");
        }
        seen
    }

    /// Goes on until nothing is out.
    fn drain(&mut self) {
        for _ in 0..2_000 {
            if self.window.waiting() == 0 {
                return;
            }
            self.store(100);
            self.look(SECOND);
        }
        panic!("{} spans are out for ever", self.window.waiting());
    }
}

/// The usual case: what is stored is found, the cursor moves, nothing goes out twice.
#[test]
fn what_is_there_is_settled() {
    let mut phoenix = Played::new([]);
    (0..10).for_each(|_| phoenix.send(30));
    phoenix.store(100);
    assert_eq!(phoenix.look(SECOND).found, 100);
    assert_eq!((phoenix.cursor, phoenix.window.waiting()), (Offset(90), 200));
    phoenix.drain();
    assert_eq!((phoenix.cursor, phoenix.sends, phoenix.window.bytes()), (Offset(300), 10, 0));
}

#[test]
fn nobody_asks_before_phoenix_can_have_stored() {
    let mut phoenix = Played::new([]);
    phoenix.send(3);
    assert_eq!(phoenix.window.wanted(10, phoenix.now).len(), 0);
    assert_eq!(phoenix.window.wanted(10, phoenix.now + SECOND).len(), 3);
    assert_eq!(phoenix.window.wanted(2, phoenix.now + SECOND).len(), 2);
}

/// A Phoenix that is slow is not lossy: nothing is sent again to it, however full its queue.
#[test]
fn a_slow_phoenix_is_waited_for() {
    let mut phoenix = Played::new([]);
    phoenix.send(500);
    for _ in 0..50 {
        phoenix.store(9);
        phoenix.look(SECOND);
    }
    assert_eq!((phoenix.sends, phoenix.window.waiting()), (1, 50));
}

/// What a killed Phoenix held in memory is sent again, in as few loads as it takes, and is held against no span.
#[test]
fn what_a_restart_lost_is_sent_again() {
    let mut phoenix = Played::new([]);
    (0..10).for_each(|_| phoenix.send(100));
    phoenix.store(250);
    phoenix.look(SECOND);
    for _ in 0..5 {
        phoenix.restart();
        phoenix.look(SECOND);
        phoenix.look(SECOND);
    }
    phoenix.drain();
    assert_eq!((phoenix.cursor, phoenix.aside.len()), (Offset(1_000), 0));
    assert!(phoenix.sends < 10 + 5 * 20, "{} sends", phoenix.sends);
}

/// A span that Phoenix drops each time, while it stores others, is given up after the third; its neighbours are not.
#[test]
fn what_phoenix_drops_three_times_is_put_aside() {
    let mut phoenix = Played::new([5, 123]);
    phoenix.send(200);
    for _ in 0..30 {
        phoenix.send(1);
        phoenix.store(1_000);
        phoenix.look(SECOND);
    }
    assert_eq!(phoenix.aside, BTreeMap::from([(5, "dropped"), (123, "dropped")]));
    assert_eq!(phoenix.cursor, Offset(230));
}

/// With nothing sent after it, it may as well be late: it gets minutes.
#[test]
fn a_lone_missing_span_gets_its_time() {
    let mut phoenix = Played::new([0]);
    phoenix.send(1);
    for minutes in 0..8 {
        assert_eq!(phoenix.aside.len(), usize::from(minutes > 6), "after {minutes} minutes");
        (0..60).for_each(|_| {
            phoenix.store(10);
            phoenix.look(SECOND);
        });
    }
}

/// A Phoenix whose database stands still stores nothing: no span is to blame for that.
#[test]
fn a_phoenix_that_stores_nothing_condemns_nothing() {
    let mut phoenix = Played::new([]);
    phoenix.send(200);
    (0..1_800).for_each(|_| drop(phoenix.look(SECOND)));
    assert_eq!(phoenix.aside.len(), 0);
    assert!(phoenix.sends < 10, "{} sends to a phoenix that stands still", phoenix.sends);
    phoenix.drain();
    assert_eq!(phoenix.cursor, Offset(200));
}

/// The same span id under another trace: Phoenix keeps the first for ever, so the second goes aside at once.
#[test]
fn a_span_id_of_another_trace_is_put_aside_without_a_loop() {
    let mut phoenix = Played::new([]);
    phoenix.stored.insert(SpanId(2_u64.to_be_bytes()), TraceId([9; 16]));
    phoenix.send(5);
    phoenix.drain();
    assert_eq!(phoenix.aside, BTreeMap::from([(1, "collided")]));
    assert_eq!(phoenix.sends, 1);
}

/// A client that repeats itself proves nothing about what lies between.
#[test]
fn a_repeated_span_shows_nothing() {
    let mut phoenix = Played::new([]);
    phoenix.send(1);
    phoenix.store(1);
    phoenix.look(SECOND);
    phoenix.send(100);
    let again = Parcel::new(part(0, 1).into(), Offset(102), Tally::default());
    phoenix.acknowledge(&again.load().clone());
    phoenix.window.sent(again, &[], 0, phoenix.now);
    for _ in 0..20 {
        phoenix.look(SECOND);
    }
    assert_eq!((phoenix.sends, phoenix.window.waiting()), (3, 100), "spans that are merely late went out again");
}

#[derive(Clone, Debug)]
enum Step {
    Send(u64),
    Store(usize),
    Restart,
    Look(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u64..40).prop_map(Step::Send),
        4 => (0_usize..80).prop_map(Step::Store),
        1 => Just(Step::Restart),
        4 => (1_u64..1_500).prop_map(Step::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens to Phoenix: in the end each span is stored or aside, only those are aside that it drops, and the cursor
    /// never passed one that was neither.
    #[test]
    fn every_span_comes_to_an_end(
        steps in proptest::collection::vec(step(), 0..60),
        drops in proptest::collection::btree_set(0_u64..600, 0..6),
    ) {
        let mut phoenix = Played::new(drops);
        for step in steps {
            match step {
                Step::Send(spans) => phoenix.send(spans),
                Step::Store(spans) => phoenix.store(spans),
                Step::Restart => phoenix.restart(),
                Step::Look(millis) => drop(phoenix.look(Duration::from_millis(millis))),
            }
        }
        phoenix.drain();
        let sent = phoenix.next;
        prop_assert_eq!(phoenix.cursor, Offset(sent));
        prop_assert!(phoenix.aside.keys().all(|number| phoenix.drops.contains(number)), "{:?}", phoenix.aside);
        let dropped = phoenix.drops.iter().filter(|number| **number < sent).count();
        prop_assert_eq!(phoenix.stored.len() + dropped, sent as usize);
    }
}
