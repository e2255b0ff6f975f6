//! `emberd where SPAN_ID | TRACE_ID`: everything that is known of where a span is.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use emberd_consumers::moments::Moment;
use emberd_consumers::quarantine::{Item, Quarantine};
use emberd_log::inspect;
use emberd_model::{Offset, SpanId, TraceId, wire};
use emberd_store::Store;
use emberd_store::library::TraceFilter;
use serde_json::{Value, json};

use super::Where;
use super::books::{Kept, Place, bar};
use crate::told;

#[derive(Args)]
pub(crate) struct Options {
    /// A span's id (16 hex digits) or a trace's (32)
    id: Id,
    #[command(flatten)]
    place: Where,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy)]
enum Id {
    Span(SpanId),
    Trace(TraceId),
}

impl std::str::FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().len() {
            16 => text.trim().parse().map(Self::Span).map_err(|error| error.to_string()),
            32 => text.trim().parse().map(Self::Trace).map_err(|error| error.to_string()),
            _ => Err("expected a span id of 16 hex digits, or a trace id of 32".to_owned()),
        }
    }
}

/// A span in the log.
struct Sight {
    span: SpanId,
    trace: TraceId,
    offset: Offset,
    segment: u64,
    told: Value,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let place = match Place::open(&options.place) {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let store = place.store().await?;
    let books = place.books(&store).await?;
    let sights = in_log(&place, options.id)?;
    let items: Vec<Item> = Quarantine::open(&place.quarantine_dir())?.list(None)?;
    let mut traces: BTreeSet<TraceId> = sights.iter().map(|sight| sight.trace).collect();
    if let Id::Trace(trace) = options.id {
        traces.insert(trace);
    }
    let rows = rows(&store, &traces).await?;
    store.close().await;

    let spans: Vec<Value> = sights.iter().map(|sight| whereabouts(sight, &books, &items)).collect();
    let mut told = json!({ "log": spans, "rows": rows });
    if let Some(missed) = not_in_log(options.id, &sights, &items) {
        told["quarantine"] = missed;
    }
    let known = !sights.is_empty() || !rows.is_empty() || told.get("quarantine").is_some();
    if options.json {
        println!("{told:#}");
    } else {
        print!("{}", text(&told));
        if !known {
            println!("not known here: never accepted, or let go from the log (see [log] keep) and without a row");
        }
    }
    Ok(if known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every copy of the span, or each span of the trace, that the log holds.
fn in_log(place: &Place, id: Id) -> anyhow::Result<Vec<Sight>> {
    let needle: &[u8] = match &id {
        Id::Span(span) => &span.0,
        Id::Trace(trace) => &trace.0,
    };
    let (segments, _) = inspect::segments(&*place.disk, &place.log_dir())?;
    let (progress, finder) =
        (bar(segments.len() as u64, "looking through the log"), memchr::memmem::Finder::new(needle));
    let mut sights = Vec::new();
    inspect::batches(
        &*place.disk,
        &place.log_dir(),
        Offset(0),
        |segment, batch| {
            // Most batches do not hold these bytes at all, and need not be walked.
            if finder.find(&batch.body).is_none() {
                return;
            }
            for (index, found) in wire::spans(&batch.body).enumerate() {
                let (span, trace) = (found.span.span_id, found.span.trace_id);
                let is_it = match id {
                    Id::Span(wanted) => span == wanted,
                    Id::Trace(wanted) => trace == wanted,
                };
                if is_it {
                    let told = json!({
                        "span": span.to_string(),
                        "trace": trace.to_string(),
                        "name": found.span.name,
                        "segment": segment.id.0,
                        "offset": batch.offset.0 + index as u64,
                        "received": told::moment(batch.received_at.micros()),
                    });
                    let offset = batch.offset.plus(index as u64);
                    sights.push(Sight { span, trace, offset, segment: segment.id.0, told });
                }
            }
        },
        |_| {
            progress.inc(1);
            true
        },
    )?;
    progress.finish_and_clear();
    sights.sort_by_key(|sight| (sight.segment, sight.offset));
    Ok(sights)
}

/// What each consumer has done with a span of the log.
fn whereabouts(sight: &Sight, books: &[Kept], items: &[Item]) -> Value {
    let mut told = sight.told.clone();
    for Kept { name, book, stored } in books {
        let span = sight.span.to_string();
        let aside = items.iter().find(|item| item.consumer == *name && item.span_ids.contains(&span));
        let mut state = json!({});
        let done = book.cursor() > sight.offset;
        state["state"] = match (done, aside) {
            (_, Some(_)) => "quarantined".into(),
            (true, None) => "passed".into(),
            (false, None) => "pending".into(),
        };
        if let Some(item) = aside {
            state["reason"] = json!(item.reason);
            state["item"] = format!("{name}/{}", item.name()).into();
        }
        if let Some(stored) = stored {
            state["sent"] = when(stored.moments.first(|moment| moment.sent > sight.offset));
            state["verified"] = when(stored.moments.first(|moment| moment.done > sight.offset));
        }
        told["consumers"][name.as_str()] = state;
    }
    told
}

/// The moment between the two; none if it has not come, or was before what is kept.
fn when((before, at): (Option<Moment>, Option<Moment>)) -> Value {
    match (before, at) {
        (Some(before), Some(at)) => {
            json!({ "after": told::moment(before.at.micros()), "by": told::moment(at.at.micros()) })
        }
        (None, Some(at)) => json!({ "by": told::moment(at.at.micros()) }),
        (_, None) => Value::Null,
    }
}

async fn rows(store: &Store, traces: &BTreeSet<TraceId>) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    for trace in traces {
        let filter = TraceFilter { trace: Some(*trace), ..TraceFilter::default() };
        for row in store.traces(&filter, None, 2).await?.data {
            let told = json!(row);
            let mut short = json!({ "table": "prompt_traces" });
            for key in ["id", "prompt_id", "phoenix_trace_id", "status", "created_at", "execution_time_ms"] {
                short[key] = told[key].clone();
            }
            rows.push(short);
        }
    }
    Ok(rows)
}

/// Quarantined items that name it, where the log no longer has it.
fn not_in_log(id: Id, sights: &[Sight], items: &[Item]) -> Option<Value> {
    if !sights.is_empty() {
        return None;
    }
    let names = |item: &&Item| match id {
        Id::Span(span) => item.span_ids.contains(&span.to_string()),
        Id::Trace(trace) => item.traces.contains(&trace.to_string()),
    };
    let found: Vec<Value> = items
        .iter()
        .filter(names)
        .map(|item| json!({ "item": format!("{}/{}", item.consumer, item.name()), "reason": item.reason }))
        .collect();
    (!found.is_empty()).then(|| found.into())
}

fn text(told: &Value) -> String {
    let mut page = String::new();
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for span in told["log"].as_array().into_iter().flatten() {
        page += &format!("span {} of trace {}, {}\n", plain(&span["span"]), plain(&span["trace"]), span["name"]);
        page += &format!(
            "  log        segment {}, offset {}, received {}\n",
            span["segment"],
            span["offset"],
            plain(&span["received"])
        );
        for (name, state) in span["consumers"].as_object().into_iter().flatten() {
            page += &format!("  {name:<10} {}", plain(&state["state"]));
            for key in ["sent", "verified"] {
                if let Some(by) = state[key]["by"].as_str() {
                    page += &format!(", {key} by {by}");
                }
            }
            if let Some(reason) = state["reason"].as_str() {
                page += &format!(" as {reason}: emberd quarantine show {}", plain(&state["item"]));
            }
            page.push('\n');
        }
    }
    for row in told["rows"].as_array().into_iter().flatten() {
        page += &format!(
            "row {} of prompt_traces: trace {}, {}, prompt {}\n",
            plain(&row["id"]),
            plain(&row["phoenix_trace_id"]),
            plain(&row["status"]),
            plain(&row["prompt_id"])
        );
    }
    for item in told["quarantine"].as_array().into_iter().flatten() {
        page +=
            &format!("in quarantine as {}: emberd quarantine show {}\n", plain(&item["reason"]), plain(&item["item"]));
    }
    page
}
