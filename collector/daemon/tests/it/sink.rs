//! An OTLP/HTTP endpoint that does as the test says: away, refusing some spans, or taking all; and spans to send through emberd to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::made::text;
use super::process::Home;

#[derive(Default)]
struct State {
    away: bool,
    /// Names of spans with which a request is refused.
    refused: BTreeSet<String>,
    /// How often each span was taken, by its name.
    taken: BTreeMap<String, u64>,
}

/// The endpoint; it lives as long as the test's process.
pub struct Sink {
    at: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Sink {
    /// One that takes all.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, state) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(State::default())));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                std::thread::spawn(move || while serve(&stream, &state).is_some() {});
            }
        });
        Self { at, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1/traces", self.at)
    }

    /// Has this emberd forward here, as the consumer `sink`.
    pub fn is_forwarded_to_by(&self, home: &mut Home) {
        let forward = format!("[{{ name = \"sink\", url = \"{}\", compression = \"none\" }}]", self.url());
        home.set("EMBERD_FORWARD", &forward);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// While it is away, every connection breaks.
    pub fn goes_away(&self, away: bool) {
        self.state().away = away;
    }

    /// Requests that hold a span of these names are refused for good.
    pub fn refuses(&self, names: &[&str]) {
        self.state().refused = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// How often each span was taken.
    pub fn taken(&self) -> BTreeMap<String, u64> {
        self.state().taken.clone()
    }

    /// How often this one was.
    pub fn taken_times(&self, name: &str) -> u64 {
        self.state().taken.get(name).copied().unwrap_or(0)
    }
}

/// One request over HTTP/1.1; none when the connection ends.
fn serve(mut stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let (name, value) = line.split_once(':').unwrap_or(("", ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "content-encoding" | "expect" => panic!("the sink reads plain bodies only: {line}"),
            _ => {}
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = ExportTraceServiceRequest::decode(&*body).unwrap();
    let names: Vec<String> = spans_of(request).into_iter().map(|span| span.name).collect();
    let answer = {
        let mut state = state.lock().unwrap();
        if state.away {
            return None;
        }
        if names.iter().any(|name| state.refused.contains(name)) {
            "400 Bad Request"
        } else {
            names.into_iter().for_each(|name| *state.taken.entry(name).or_default() += 1);
            "200 OK"
        }
    };
    write!(stream, "HTTP/1.1 {answer}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").ok()
}

/// All spans of a request.
pub fn spans_of(request: ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// A model's call of one second, whose name says its trace and number.
pub fn span(trace: u64, number: u64) -> Span {
    Span {
        trace_id: trace_id(trace).to_vec(),
        span_id: (trace << 16 | (number + 1)).to_be_bytes().to_vec(),
        parent_span_id: if number == 0 { Vec::new() } else { (trace << 16 | 1).to_be_bytes().to_vec() },
        name: format!("{trace}/{number}"),
        start_time_unix_nano: 1_710_108_000_000_000_000 + trace * 1_000_000,
        end_time_unix_nano: 1_710_108_001_000_000_000 + trace * 1_000_000,
        attributes: vec![text("openinference.span.kind", "LLM"), text("llm.model_name", "gpt-4o")],
        ..Default::default()
    }
}

/// The id of a trace, such that shares of all traces hold about as many of these.
pub fn trace_id(trace: u64) -> [u8; 16] {
    let mixed = (trace + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut id = [5; 16];
    id[..8].copy_from_slice(&trace.to_be_bytes());
    id[8..].copy_from_slice(&mixed.to_be_bytes());
    id
}

/// The span's id as emberd prints it.
pub fn span_hex(trace: u64, number: u64) -> String {
    emberd_model::SpanId((trace << 16 | (number + 1)).to_be_bytes()).to_string()
}

/// A request of a project; none: of a resource that names none.
pub fn request(project: Option<&str>, spans: Vec<Span>) -> Bytes {
    requests(vec![(project, spans)])
}

/// One request with several resources.
pub fn requests(resources: Vec<(Option<&str>, Vec<Span>)>) -> Bytes {
    let resource = |(project, spans): (Option<&str>, Vec<Span>)| {
        let attributes: Vec<KeyValue> =
            project.map(|name| text("openinference.project.name", name)).into_iter().collect();
        let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
        ResourceSpans {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_spans,
            ..Default::default()
        }
    };
    ExportTraceServiceRequest { resource_spans: resources.into_iter().map(resource).collect() }.encode_to_vec().into()
}
