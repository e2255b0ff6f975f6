//! What typed columns say: of a span alone, what the row of a trace of that span alone says.

use std::collections::HashMap;

use emberd_archive::rows::How;
use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::row::row;
use emberd_model::trace::fold;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use prost::Message;
use serde_json::Value;

use crate::spans::{batches, fixtures, flat, how, write};

/// The columns of the only row of a file.
fn columns(file: bytes::Bytes) -> HashMap<String, Field> {
    let reader = SerializedFileReader::new(file).unwrap();
    let row = reader.get_row_iter(None).unwrap().next().unwrap().unwrap();
    row.get_column_iter().map(|(name, field)| (name.clone(), field.clone())).collect()
}

/// Each span of the exports, as the only and root span of its trace.
fn alone() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (_, request) in fixtures() {
        for (.., body) in batches([request]).iter().flat_map(flat) {
            let mut request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
            request.resource_spans[0].scope_spans[0].spans[0].parent_span_id.clear();
            all.push(request.encode_to_vec());
        }
    }
    all
}

fn text(field: &Field) -> Option<String> {
    match field {
        Field::Null => None,
        Field::Str(text) => Some(text.clone()),
        other => panic!("{other}"),
    }
}

fn number(field: &Field) -> Option<f64> {
    match field {
        Field::Null => None,
        Field::Long(int) => Some(*int as f64),
        Field::Double(double) => Some(*double),
        decimal @ Field::Decimal(_) => Some(decimal.to_string().parse().unwrap()),
        other => panic!("{other}"),
    }
}

#[test]
fn a_span_alone_says_what_its_trace_says() {
    let how = how();
    let (mut calls, mut priced, mut named) = (0, 0, 0);
    for body in alone() {
        let batches = batches([body]);
        let columns = columns(write(&batches, &how)[0].file.clone());
        let (trace, state) = fold(&batches, &Reading::default()).pop_first().unwrap();
        let Some(row) = row(trace, &state, &how.prices, false) else {
            assert_ne!(text(&columns["span_kind"]).as_deref(), Some("LLM"));
            assert_eq!(text(&columns["prompt_id"]), None);
            continue;
        };
        let metadata: Value = serde_json::from_str(&row.metadata).unwrap();
        let said = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
        assert_eq!(text(&columns["prompt_id"]), row.prompt_ref);
        assert_eq!(text(&columns["session_id"]), said("session_id"));
        assert_eq!(text(&columns["user_id"]), row.user_ref);
        assert_eq!(text(&columns["input"]), said("input"));
        assert_eq!(text(&columns["output"]), said("output"));
        named += u32::from(row.prompt_ref.is_some());
        if metadata["llm_calls"] != 1 {
            continue;
        }
        calls += 1;
        assert_eq!(text(&columns["span_kind"]).as_deref(), Some("LLM"));
        assert_eq!(text(&columns["model"]).unwrap_or("unknown".into()), row.model);
        assert_eq!(text(&columns["provider"]), said("provider"));
        for (column, tokens) in [
            ("prompt_tokens", row.tokens.prompt),
            ("completion_tokens", row.tokens.completion),
            ("total_tokens", row.tokens.total),
        ] {
            assert_eq!(number(&columns[column]).unwrap_or(0.0), tokens as f64, "{column}");
        }
        let cost = number(&columns["cost"]);
        assert_eq!(cost, metadata["cost"]["total"].as_f64());
        priced += u32::from(cost.is_some());
        // A row's metadata has whole microseconds.
        let (ttft, told) = (number(&columns["ttft_ms"]), metadata["ttft_ms"].as_f64());
        assert_eq!(ttft.is_some(), told.is_some());
        assert!(ttft.zip(told).is_none_or(|(ttft, told)| (ttft - told).abs() <= 0.000_501), "{ttft:?} {told:?}");
    }
    assert!(calls > 20 && priced > 10 && named > 0, "{calls} calls, {priced} priced, {named} name a prompt");
}

/// Texts are left out where config says so; they stay in the attributes, which are the span's own.
#[test]
fn texts_may_be_left_out() {
    let reading = Reading { texts: false, ..Reading::default() };
    let how = How { reading, prices: Prices::default(), ..How::default() };
    for body in alone().into_iter().take(20) {
        let columns = columns(write(&batches([body]), &how)[0].file.clone());
        assert_eq!((text(&columns["input"]), text(&columns["output"])), (None, None));
    }
}
