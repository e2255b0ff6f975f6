//! The ledger in JSON, as the API and the commands tell it.

use emberd_intake::turned_away::{Line, What};
use emberd_model::ledger::{Book, EARLIER, Hour};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A line of what the doors turned away.
pub(crate) fn turned_away(line: &Line, spans: u64) -> Value {
    let what = match line.what {
        What::Rejected => "rejected",
        What::Refused => "refused",
    };
    json!({ "hour": hour(line.hour), "what": what, "transport": line.transport, "reason": line.reason, "spans": spans })
}

/// A consumer's book, line by line.
pub(crate) fn book(book: &Book) -> Value {
    let lines: Vec<Value> = book
        .lines()
        .map(|(account, fate, spans)| {
            let (fate, reason) = fate.words();
            json!({
                "hour": hour(account.hour),
                "project": &*account.project,
                "fate": fate,
                "reason": reason,
                "spans": spans,
            })
        })
        .collect();
    json!({ "origin": book.origin(), "cursor": book.cursor().0, "balanced": book.is_balanced(), "lines": lines })
}

/// An hour's beginning; "earlier" for what is booked together.
pub(crate) fn hour(hour: Hour) -> String {
    if hour == EARLIER {
        return "earlier".to_owned();
    }
    moment(hour.begins().micros())
}

/// A moment in RFC 3339, to the second.
pub(crate) fn moment(micros: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(micros.div_euclid(1_000_000)).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| "?".to_owned())
}
