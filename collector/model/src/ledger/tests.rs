use proptest::prelude::*;

use super::*;
use crate::Offset;

fn account(hour: u32, project: &str) -> Account {
    Account::new(Hour(hour), project)
}

fn fates() -> impl Strategy<Value = Fate> {
    let reasons = prop_oneof![Just("share"), Just("refused"), Just("")].prop_map(Reason::new);
    (0..5, reasons).prop_map(|(kind, reason)| match kind {
        0 => Fate::Done,
        1 => Fate::Duplicate,
        2 => Fate::Quarantined(reason),
        3 => Fate::Shed(reason),
        _ => Fate::Lost(reason),
    })
}

fn steps() -> impl Strategy<Value = Vec<(u32, u16, Fate, u32)>> {
    prop::collection::vec((490_000u32..490_000 + 2 * HOURS_MAX, 0..300u16, fates(), 1..1_000u32), 0..80)
}

/// The book after these steps, each a stretch of the log.
fn booked(steps: &[(u32, u16, Fate, u32)], from: Offset) -> Book {
    let mut book = Book::begin(from);
    for (hour, project, fate, spans) in steps {
        let mut tally = Tally::default();
        tally.add(&account(*hour, &project.to_string()), fate.clone(), i64::from(*spans));
        book.book(book.cursor().plus(u64::from(*spans)), &tally);
    }
    book
}

proptest! {
    /// Every span that was passed is in the book once, whatever hours and projects came in whatever order.
    #[test]
    fn a_book_is_balanced_after_every_step(steps in steps(), from in 0u64..1_000) {
        for upto in 0..=steps.len() {
            let book = booked(&steps[..upto], Offset(from));
            prop_assert!(book.is_balanced(), "{book:?}");
            let words = ["done", "duplicate", "quarantined", "shed", "lost"].map(|word| book.total(word));
            prop_assert_eq!(words.iter().sum::<u64>(), book.cursor().0 - from);
            prop_assert_eq!(book.accounts(Hour(490_100)).values().sum::<i64>(), book.spans());
        }
    }

    /// A book and a tally come back from their bytes, and what follows them is left alone.
    #[test]
    fn what_is_stored_is_read(steps in steps(), rest: Vec<u8>) {
        let book = booked(&steps, Offset(7));
        let bytes = [book.encode(), rest.clone()].concat();
        let mut left = &bytes[..];
        prop_assert_eq!(Book::decode(&mut left), Ok(book.clone()));
        prop_assert_eq!(left, &rest[..]);

        let tally = Tally(book.lines.clone());
        let mut bytes = Vec::new();
        tally.encode(&mut bytes);
        bytes.extend_from_slice(&rest);
        let mut left = &bytes[..];
        prop_assert_eq!(Tally::decode(&mut left), Ok(tally));
        prop_assert_eq!(left, &rest[..]);
    }

    /// Nonsense is an error, and costs no more memory than it has bytes.
    #[test]
    fn nonsense_is_no_book(mut bytes: Vec<u8>, at: prop::sample::Index) {
        let _ = Book::decode(&mut &bytes[..]);
        let mut sound = booked(&[(490_000, 1, Fate::Done, 3)], Offset(0)).encode();
        let place = at.index(sound.len());
        sound[place] ^= 0x55;
        let _ = Book::decode(&mut &sound[..]);
        bytes.insert(0, VERSION_OF_NOW);
        let _ = Book::decode(&mut &bytes[..]);
    }
}

const VERSION_OF_NOW: u8 = 1;

/// A crowd of project names costs the book no more than its bound, and loses no span.
#[test]
fn a_crowd_of_projects_is_booked_as_one() {
    let mut book = Book::begin(Offset(0));
    for n in 0..10_000u64 {
        let mut tally = Tally::default();
        tally.add(&account(490_000, &format!("project {n}")), Fate::Done, 1);
        book.book(Offset(n + 1), &tally);
    }
    let accounts = book.accounts(Hour(0));
    assert_eq!(accounts.len(), PROJECTS_MAX + 1);
    assert_eq!(accounts[&account(490_000, OTHER_PROJECTS)], 10_000 - PROJECTS_MAX as i64);
    assert!(book.is_balanced());
}

/// Hours older than a week are one, and what comes late for them is booked there.
#[test]
fn old_hours_are_folded() {
    let hours = [490_000, 490_001, 490_000 + HOURS_MAX + 5, 490_002];
    let steps: Vec<_> = hours.iter().map(|hour| (*hour, 1, Fate::Done, 10)).collect();
    let book = booked(&steps, Offset(0));
    assert_eq!(book.accounts(Hour(0))[&account(EARLIER.0, "1")], 30);
    assert_eq!(book.first_hour(), Some(Hour(490_000 + HOURS_MAX + 5)));
}

/// Quarantined spans that are delivered after all move from one line to the other, and the sum stays.
#[test]
fn a_fate_can_be_taken_back() {
    let (of, refused) = (account(490_000, "a"), Fate::Quarantined(Reason::new("refused")));
    let mut book = booked(&[], Offset(0));
    let mut tally = Tally::default();
    tally.add(&of, refused.clone(), 3);
    book.book(Offset(3), &tally);
    let mut retried = Tally::default();
    retried.add(&of, refused, -3);
    retried.add(&of, Fate::Done, 3);
    book.book(Offset(3), &retried);
    assert_eq!((book.total("quarantined"), book.total("done"), book.is_balanced()), (0, 3, true));
}

/// A log that lost its end takes nothing out of the book, and the sums hold on.
#[test]
fn a_log_that_lost_its_end_leaves_the_book_balanced() {
    let mut book = booked(&[(490_000, 1, Fate::Done, 100)], Offset(50));
    book.moved_back(Offset(120));
    assert_eq!((book.cursor(), book.origin(), book.is_balanced()), (Offset(120), 20, true));
}

/// The accounts of a batch's spans, told span by span and trace by trace, come to the same; and the first that are done are booked first.
#[test]
fn origins_tell_what_the_batch_holds() {
    use crate::facts::Reading;
    use crate::trace::fold_and_count;
    let request = |project: &str, spans: &[(u8, u8)]| {
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
        use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
        use opentelemetry_proto::tonic::resource::v1::Resource;
        use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
        use prost::Message;
        let span = |(trace, span): &(u8, u8)| Span {
            trace_id: vec![*trace; 16],
            span_id: vec![*span; 8],
            ..Default::default()
        };
        let value = Some(AnyValue { value: Some(Value::StringValue(project.into())) });
        let attributes = vec![KeyValue { key: PROJECT.into(), value, ..Default::default() }];
        let scope_spans = vec![ScopeSpans { spans: spans.iter().map(span).collect(), ..Default::default() }];
        let resource = Some(Resource { attributes, ..Default::default() });
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }],
        }
        .encode_to_vec()
    };
    let body = [request("a", &[(1, 1), (1, 2), (2, 3)]), request("b", &[(1, 4), (2, 3)])].concat();
    let batch = Batch {
        offset: Offset(0),
        spans: 6,
        received_at: Hour(490_000).begins(),
        key: 0,
        flags: crate::Flags::default(),
        body: body.into(),
    };
    let [a, b, default] = ["a", "b", DEFAULT_PROJECT].map(|project| account(490_000, project));
    let runs = Runs::of(&batch);
    assert_eq!(runs.iter().collect::<Vec<_>>(), [(&a, 3), (&b, 2), (&default, 1)]);
    // Where the count is known to be right, it comes to the same with the last resource's spans not counted.
    let right = Batch { spans: 5, flags: crate::Flags::COUNTED, ..batch.clone() };
    assert_eq!(Runs::of(&right), runs.slice(0..5));
    assert_eq!(Runs::of(&Batch { flags: crate::Flags::default(), ..right }), runs.slice(0..5));
    let alone = request("a", &[(1, 1), (1, 2)]);
    let alone = Batch { spans: 2, flags: crate::Flags::COUNTED, body: alone.into(), ..batch.clone() };
    assert_eq!(Runs::of(&alone), runs.slice(0..2));
    assert_eq!(runs.slice(2..4).iter().collect::<Vec<_>>(), [(&a, 1), (&b, 1)]);
    assert_eq!(runs.slice(0..6), runs);
    let each: Vec<_> = (0..7).map(|at| runs.at(at)).collect();
    assert_eq!(each, [Some(&a), Some(&a), Some(&a), Some(&b), Some(&b), Some(&default), None]);

    let folded = fold_and_count([&batch], &Reading::default());
    let mut tally = Tally::default();
    let trace = |n: u8| crate::TraceId([n; 16]);
    for n in [1, 2] {
        assert_eq!(folded.origins.spans(trace(n)), [3, 2][n as usize - 1]);
        folded.origins.book(trace(n), folded.states[&trace(n)].spans() as u64, &Fate::Duplicate, &mut tally);
    }
    let lost = Fate::Lost(Reason::new("unreadable"));
    folded.origins.book_strays(&lost, &mut tally);
    let lines: Vec<_> = tally.lines().collect();
    assert_eq!(lines, [(&a, &Fate::Done, 3), (&b, &Fate::Done, 1), (&b, &Fate::Duplicate, 1), (&default, &lost, 1)]);
    let mut book = Book::begin(Offset(0));
    book.book(batch.end(), &tally);
    assert!(book.is_balanced());
}
