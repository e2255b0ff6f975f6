//! The counters in Prometheus' text form.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use super::{ANSWER_MILLIS, Counters, LaneSnapshot, Transport};
use crate::refusal::Reason;

impl Counters {
    /// Appends all of them to `page`, as `emberd_intake_*`.
    pub fn write_prometheus(&self, page: &mut String) {
        let now = self.snapshot();
        let mut page = Page(page);
        let lanes = || Transport::ALL.iter().zip(&now.lanes);

        let mut by_lane = |name: &str, help: &str, of: fn(&LaneSnapshot) -> u64| {
            page.head(name, "counter", help);
            for (transport, lane) in lanes() {
                page.line(name, format_args!("transport=\"{}\"", transport.as_str()), of(lane));
            }
        };
        by_lane("requests_total", "Requests whose head came.", |lane| lane.requests);
        by_lane("body_bytes_total", "Bytes of request bodies, before inflating.", |lane| lane.body_bytes);
        by_lane("answered_total", "Requests answered with success, partial success included.", |lane| lane.answered);
        by_lane("partial_total", "Requests answered with partial success.", |lane| lane.partial);
        by_lane("received_spans_total", "Spans of requests that could be walked.", |lane| lane.received_spans);
        by_lane("accepted_spans_total", "Spans that are durable.", |lane| lane.accepted_spans);
        by_lane("rejected_spans_total", "Spans that can never be kept.", |lane| lane.rejected_spans);

        let mut by_reason = |name: &str, help: &str, of: fn(&LaneSnapshot, Reason) -> u64| {
            page.head(name, "counter", help);
            for (transport, lane) in lanes() {
                for &reason in Reason::ALL {
                    let labels = format_args!("transport=\"{}\",reason=\"{}\"", transport.as_str(), reason.as_str());
                    page.line(name, labels, of(lane, reason));
                }
            }
        };
        by_reason("refused_total", "Requests refused.", |lane, reason| lane.refused[reason as usize]);
        by_reason("refused_spans_total", "Well-formed spans refused with their request.", |lane, reason| {
            lane.refused_spans[reason as usize]
        });

        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            page.head(name, kind, help);
            page.line(name, "", value);
        };
        one("inflated_bytes_total", "counter", "Bytes that came out of decompression.", now.inflated_bytes);
        one("stray_spans_total", "counter", "Spans whose client left before they were durable.", now.stray_spans);
        one("accept_errors_total", "counter", "Connections that could not be accepted.", now.accept_errors);
        one("connections_total", "counter", "Connections accepted.", now.connections);
        one("connections_open", "gauge", "Connections open.", now.connections_open);
        one("in_flight_bytes", "gauge", "Bytes that requests inside hold.", now.in_flight_bytes);
        one("in_flight_max_bytes", "gauge", "Bytes that requests inside may hold.", now.in_flight_max_bytes);
        self.write_answer_times(&mut page);
    }

    fn write_answer_times(&self, page: &mut Page<'_>) {
        let name = "answer_seconds";
        page.head(name, "histogram", "From a request's head to its answer of success.");
        for (transport, lane) in Transport::ALL.iter().zip(&self.lanes) {
            let transport = transport.as_str();
            let mut answers = 0;
            for (bucket, times) in lane.answer_times.iter().enumerate() {
                answers += times.load(Relaxed);
                let bound = ANSWER_MILLIS.get(bucket).map_or(f64::INFINITY, |&millis| millis as f64 / 1e3);
                let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".into() };
                page.line("answer_seconds_bucket", format_args!("transport=\"{transport}\",le=\"{bound}\""), answers);
            }
            let labels = format_args!("transport=\"{transport}\"");
            page.line("answer_seconds_sum", labels, lane.answer_micros.load(Relaxed) as f64 / 1e6);
            page.line("answer_seconds_count", format_args!("transport=\"{transport}\""), answers);
        }
    }
}

struct Page<'a>(&'a mut String);

/// Writing to a String cannot fail.
impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP emberd_intake_{name} {help}\n# TYPE emberd_intake_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: impl Display, value: impl Display) {
        let labels = labels.to_string();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "emberd_intake_{name} {value}"),
            false => writeln!(self.0, "emberd_intake_{name}{{{labels}}} {value}"),
        };
    }
}
