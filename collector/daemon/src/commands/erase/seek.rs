//! Which traces are somebody's, as far as the log and the quarantine know, and what the log still holds of them.

use std::collections::BTreeSet;

use emberd_consumers::quarantine::Quarantine;
use emberd_evaluators_jobs::live;
use emberd_log::{CursorFile, inspect};
use emberd_model::wire::{self, AttributeView};
use emberd_model::{Offset, TraceId, UnixNanos};
use emberd_store::erase::Whom;

use super::super::books::{Place, bar};

/// What the log still holds.
#[derive(Debug, Default)]
pub(super) struct InLog {
    pub(super) spans: u64,
    pub(super) segments: BTreeSet<u64>,
    pub(super) newest: Option<UnixNanos>,
}

/// Where the log ends now.
pub(super) fn head(place: &Place) -> anyhow::Result<Offset> {
    Ok(inspect::batches(&*place.disk, &place.log_dir(), Offset(0), |_, _| {}, |_| true)?.end)
}

/// Where the rules on live traffic are; none if they never read.
pub(super) fn rules_cursor(place: &Place) -> anyhow::Result<Option<(String, Offset)>> {
    let dir = place.config.data_dir.join("cursors");
    if !dir.is_dir() {
        return Ok(None);
    }
    let cursor = CursorFile::open_on(place.disk.clone(), &dir, live::CONSUMER)?.load()?;
    Ok(cursor.map(|at| (live::CONSUMER.to_owned(), at)))
}

fn names<'a>(mut attributes: impl Iterator<Item = AttributeView<'a>>, whom: &Whom) -> bool {
    attributes.any(|pair| {
        let key = pair.key.to_ascii_lowercase();
        let of = if key.contains("user") {
            &whom.users
        } else if key.contains("session") || key.contains("thread") || key.contains("conversation") {
            &whom.sessions
        } else {
            return false;
        };
        pair.value().as_str().is_some_and(|text| of.contains(text))
    })
}

/// The traces of a request that name them, in a span or in what emitted it.
fn named(body: &[u8], whom: &Whom, traces: &mut BTreeSet<TraceId>) {
    for found in wire::spans(body) {
        if names(found.span.attributes(), whom) || names(found.resource.attributes(), whom) {
            traces.insert(found.span.trace_id);
        }
    }
}

pub(super) fn named_in_log(place: &Place, whom: &Whom) -> anyhow::Result<BTreeSet<TraceId>> {
    let mut traces = BTreeSet::new();
    let finders: Vec<_> =
        whom.users.iter().chain(&whom.sessions).map(|text| memchr::memmem::Finder::new(text.as_bytes())).collect();
    if finders.is_empty() {
        return Ok(traces);
    }
    each(place, |_, batch| {
        if finders.iter().any(|finder| finder.find(&batch.body).is_some()) {
            named(&batch.body, whom, &mut traces);
        }
    })?;
    Ok(traces)
}

pub(super) fn named_in_quarantine(quarantine: &Quarantine, whom: &Whom) -> anyhow::Result<BTreeSet<TraceId>> {
    let mut traces = BTreeSet::new();
    for item in quarantine.list(None)? {
        named(&quarantine.body(&item)?, whom, &mut traces);
    }
    Ok(traces)
}

/// What the log holds of these traces.
pub(super) fn in_log(place: &Place, traces: &BTreeSet<TraceId>) -> anyhow::Result<InLog> {
    let mut held = InLog::default();
    if traces.is_empty() {
        return Ok(held);
    }
    each(place, |segment, batch| {
        let spans = wire::spans(&batch.body).filter(|found| traces.contains(&found.span.trace_id)).count() as u64;
        if spans > 0 {
            held.spans += spans;
            held.segments.insert(segment);
            held.newest = held.newest.max(Some(batch.received_at));
        }
    })?;
    Ok(held)
}

fn each(place: &Place, mut look: impl FnMut(u64, emberd_model::Batch)) -> anyhow::Result<()> {
    let (segments, _) = inspect::segments(&*place.disk, &place.log_dir())?;
    let progress = bar(segments.len() as u64, "looking through the log");
    let next = |_: &inspect::Found| {
        progress.inc(1);
        true
    };
    inspect::batches(&*place.disk, &place.log_dir(), Offset(0), |segment, batch| look(segment.id.0, batch), next)?;
    progress.finish_and_clear();
    Ok(())
}
