//! The targets, by the room whose parser they try.

mod answer;
mod archive;
mod archive_manifest;
mod cache;
mod config;
mod cut;
mod datasets;
mod door;
mod journal;
mod json;
mod keys;
mod kit;
mod log;
mod mend;
mod number;
mod plugin;
mod prices;
mod redact;
mod sketch;
mod trace;
mod wire;

use crate::{Target, seeds};

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "walk", run: wire::walk, seeds: seeds::requests },
    Target { name: "walk_wild", run: wire::walk_wild, seeds: seeds::none },
    Target { name: "walk_values", run: wire::walk_values, seeds: seeds::requests },
    Target { name: "cut_rejected", run: wire::cut_rejected, seeds: seeds::headed_requests },
    Target { name: "edited", run: wire::edited, seeds: seeds::headed_requests },
    Target { name: "json", run: json::json, seeds: seeds::json },
    Target { name: "json_syntax", run: json::json_syntax, seeds: seeds::json },
    Target { name: "json_forms", run: json::json_forms, seeds: seeds::none },
    Target { name: "number", run: number::number, seeds: number::seeds },
    Target { name: "facts", run: trace::facts, seeds: seeds::headed_requests },
    Target { name: "trace_state", run: trace::trace_state, seeds: seeds::states },
    Target { name: "row", run: trace::row, seeds: trace::row_seeds },
    Target { name: "sketch", run: sketch::sketch, seeds: sketch::seeds },
    Target { name: "sketch_sums", run: sketch::sketch_sums, seeds: seeds::none },
    Target { name: "prices", run: prices::prices, seeds: prices::seeds },
    Target { name: "segment", run: log::segment, seeds: seeds::none },
    Target { name: "segment_noise", run: log::segment_noise, seeds: log::segment_seeds },
    Target { name: "cursor", run: log::cursor, seeds: log::cursor_seeds },
    Target { name: "journal", run: journal::journal, seeds: seeds::none },
    Target { name: "journal_noise", run: journal::journal_noise, seeds: journal::noise_seeds },
    Target { name: "mend", run: mend::mend, seeds: seeds::requests },
    Target { name: "mend_forms", run: mend::mend_forms, seeds: seeds::none },
    Target { name: "outline", run: cut::outline, seeds: seeds::headed_requests },
    Target { name: "outline_noise", run: cut::outline_noise, seeds: seeds::headed_requests },
    Target { name: "answer", run: answer::answer, seeds: answer::seeds },
    Target { name: "retry_after", run: answer::retry_after, seeds: answer::retry_after_seeds },
    Target { name: "inflate", run: door::inflate, seeds: door::inflate_seeds },
    Target { name: "deflate", run: door::deflate, seeds: seeds::headed_requests },
    Target { name: "grpc_frame", run: door::grpc_frame, seeds: door::grpc_frame_seeds },
    Target { name: "grpc_timeout", run: door::grpc_timeout, seeds: door::grpc_timeout_seeds },
    Target { name: "keys", run: keys::keys, seeds: keys::seeds },
    Target { name: "config", run: config::config, seeds: config::seeds },
    Target { name: "redact", run: redact::redact, seeds: redact::seeds },
    Target { name: "path", run: kit::path, seeds: kit::path_seeds },
    Target { name: "template", run: kit::template, seeds: kit::template_seeds },
    Target { name: "verdict", run: kit::verdict, seeds: kit::verdict_seeds },
    Target { name: "plugin_description", run: plugin::plugin_description, seeds: plugin::description_seeds },
    Target { name: "plugin_answer", run: plugin::plugin_answer, seeds: plugin::answer_seeds },
    Target { name: "plugin_request", run: plugin::plugin_request, seeds: plugin::request_seeds },
    Target { name: "plugin_lines", run: plugin::plugin_lines, seeds: plugin::lines_seeds },
    Target { name: "dataset_json", run: datasets::dataset_json, seeds: datasets::json_seeds },
    Target { name: "dataset_jsonl", run: datasets::dataset_jsonl, seeds: datasets::lines_seeds },
    Target { name: "dataset_csv", run: datasets::dataset_csv, seeds: datasets::csv_seeds },
    Target { name: "archive_rows", run: archive::rows, seeds: seeds::requests },
    Target { name: "archive_wild", run: archive::wild, seeds: seeds::none },
    Target { name: "archive_file", run: archive::file, seeds: archive::file_seeds },
    Target { name: "cache_wire", run: cache::cache_wire, seeds: cache::seeds },
    Target { name: "archive_entry", run: archive_manifest::archive_entry, seeds: archive_manifest::seeds },
    Target { name: "cache_pattern", run: cache::cache_pattern, seeds: cache::pattern_seeds },
];

/// The first `N` bytes, zeros where there are fewer, and what follows.
fn head<const N: usize>(input: &[u8]) -> ([u8; N], &[u8]) {
    let mut head = [0; N];
    let some = input.len().min(N);
    head[..some].copy_from_slice(&input[..some]);
    (head, &input[some..])
}

/// Two parts of `input`, cut where a byte says: in 256ths of its length.
fn halves(input: &[u8], at: u8) -> (&[u8], &[u8]) {
    input.split_at(input.len() * usize::from(at) / 256)
}
