//! A disk budget that is used up while Phoenix is away: every refusal is one that an SDK waits out, and nothing acknowledged is lost.
//!
//! The SDK is a real one, OpenTelemetry's for Python, with its own exporters and its own retry. The endpoint behind emberd is the
//! test's: dead at first, then an OTLP/HTTP sink on the same port.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::net::TcpSocket;
use tonic::transport::Channel;

use super::client::Raw;
use super::process::{Emberd, Home, PATIENCE};

const BUDGET_BYTES: usize = 64 << 20;
const RSS_BYTES_MAX: u64 = 256 << 20;
const BODY_BYTES: usize = 256 << 10;
const SDK_SPANS: usize = 50;

/// Makes spans, hands them to the SDK, and waits until the SDK has let go of them.
const SDK: &str = r#"
import logging, sys
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

kind, endpoint, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True, timeout=120)
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=120)
provider = TracerProvider(resource=Resource.create({"service.name": "sdk"}))
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100, export_timeout_millis=120000))
tracer = provider.get_tracer("sdk")
for number in range(count):
    with tracer.start_as_current_span(f"sdk {kind} {number}") as span:
        span.set_attribute("input.value", "x" * 20000)
provider.force_flush(120000)
provider.shutdown()
"#;

/// A span of this number, large enough that a few hundred fill the budget.
fn export(number: u64) -> Bytes {
    let value = AnyValue { value: Some(Value::StringValue("x".repeat(BODY_BYTES))) };
    let mut trace_id = vec![9; 16];
    trace_id[8..].copy_from_slice(&(number + 1).to_be_bytes());
    let span = Span {
        trace_id,
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: format!("load {number}"),
        start_time_unix_nano: 1_795_219_200_000_000_000,
        end_time_unix_nano: 1_795_219_201_000_000_000,
        attributes: vec![KeyValue { key: "input.value".into(), value: Some(value), ..KeyValue::default() }],
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// Names of the spans that came through.
#[derive(Clone, Default)]
struct Arrived(Arc<Mutex<BTreeSet<String>>>);

impl Arrived {
    fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap().contains(name)
    }
}

/// An endpoint whose port is taken, and on which nobody listens yet.
struct Sink {
    at: SocketAddr,
    socket: TcpSocket,
}

impl Sink {
    /// Bound, so that nobody else gets the port; connections are refused.
    fn dead() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { at: socket.local_addr().unwrap(), socket }
    }

    /// Takes all that comes from now on.
    fn open(self) -> Arrived {
        let listener = self.socket.listen(64).unwrap().into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        let arrived = Arrived::default();
        let kept = arrived.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let arrived = arrived.clone();
                std::thread::spawn(move || while serve(&stream, &arrived).is_some() {});
            }
        });
        kept
    }
}

/// One request over HTTP/1.1; none when the connection ends.
fn serve(mut stream: &TcpStream, arrived: &Arrived) -> Option<()> {
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
            "content-encoding" => panic!("the sink reads plain bodies only: {line}"),
            "expect" => panic!("the sink does not ask for bodies"),
            _ => {}
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    if let Ok(request) = ExportTraceServiceRequest::decode(&*body) {
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        arrived.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans).map(|span| span.name));
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").ok()
}

/// What a sender of the load heard.
enum Heard {
    Acked,
    /// Full, as OTLP says it so that SDKs come again.
    Full,
}

struct Load {
    grpc: tonic::client::Grpc<Channel>,
    http: reqwest::Client,
    url: String,
    next: u64,
    acked: Vec<u64>,
}

impl Load {
    async fn connect(emberd: &Emberd) -> Self {
        let channel = Channel::from_shared(emberd.grpc()).unwrap().connect().await.unwrap();
        let grpc = tonic::client::Grpc::new(channel);
        Self { grpc, http: reqwest::Client::new(), url: emberd.http(), next: 0, acked: Vec::new() }
    }

    /// Sends the next span over one transport, and checks that a refusal is one that can be waited out.
    async fn send(&mut self, over_grpc: bool) -> Heard {
        let number = self.next;
        self.next += 1;
        let full = if over_grpc { self.over_grpc(export(number)).await } else { self.over_http(export(number)).await };
        if full {
            return Heard::Full;
        }
        self.acked.push(number);
        Heard::Acked
    }

    async fn over_grpc(&mut self, body: Bytes) -> bool {
        self.grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        let Err(status) = self.grpc.unary(tonic::Request::new(body), path, Raw).await else { return false };
        let is_back_pressure = matches!(status.code(), tonic::Code::ResourceExhausted | tonic::Code::Unavailable);
        let has_retry_info = status.details().windows(9).any(|window| window == b"RetryInfo");
        assert!(is_back_pressure && has_retry_info, "{status:?}");
        true
    }

    async fn over_http(&self, body: Bytes) -> bool {
        let request = self.http.post(&self.url).header("content-type", "application/x-protobuf").body(body);
        let answer = request.send().await.unwrap();
        if answer.status().is_success() {
            return false;
        }
        let retry_after =
            answer.headers().get("retry-after").and_then(|after| after.to_str().ok()?.parse::<u64>().ok());
        assert!(matches!(answer.status().as_u16(), 429 | 503) && retry_after >= Some(1), "{answer:?}");
        assert!(answer.bytes().await.unwrap().windows(9).any(|window| window == b"RetryInfo"));
        true
    }

    /// Sends over both until both are refused, several times in a row.
    async fn until_full(&mut self) {
        let mut refused = [0; 2];
        while refused.iter().any(|&times| times < 3) {
            for (over_grpc, times) in [true, false].into_iter().zip(&mut refused) {
                match self.send(over_grpc).await {
                    Heard::Full => *times += 1,
                    Heard::Acked => *times = 0,
                }
            }
            assert!(self.acked.len() * BODY_BYTES <= BUDGET_BYTES, "the budget holds more than it has");
        }
    }
}

/// The most memory that a process ever had.
fn peak_rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn sdk(python: &Path, kind: &str, endpoint: &str, said: &Path) -> Child {
    let mut command = Command::new(python);
    command.args(["-c", SDK, kind, endpoint, &SDK_SPANS.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(said).unwrap()).spawn().unwrap()
}

/// Waits for something of the test's own or emberd's doing.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < PATIENCE, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Phoenix is away and the budget of 64 MiB is used up: clients of both doors hear that they shall come again, and when. An SDK
/// holds its spans meanwhile; once the endpoint is there they arrive, and so does all that was ever acknowledged. Segments that
/// everyone has passed give way although they would be kept for a day. Memory stays bounded throughout.
///
/// The collector's exporter took RESOURCE_EXHAUSTED without RetryInfo for final, and dropped what it held.
#[tokio::test(flavor = "multi_thread")]
async fn otelcol_15126_a_full_budget_is_waited_out_by_a_real_sdk() {
    let python = super::phoenix::venv().join("bin/python");
    let sink = Sink::dead();
    let mut home = Home::new();
    home.set("EMBERD_LOG_BUDGET", "64MiB")
        .set("EMBERD_LOG_SEGMENT", "8MiB")
        .set("EMBERD_PHOENIX_OTLP", &format!("http://{}/v1/traces", sink.at))
        .set("EMBERD_PHOENIX_VERIFY", "false");
    let emberd = home.start();
    let mut load = Load::connect(&emberd).await;
    load.until_full().await;
    let status = emberd.get("/api/status").await;
    assert_eq!(status["ledger"]["accepted_spans"], load.acked.len(), "{status:#}");
    assert!(load.acked.len() * BODY_BYTES > BUDGET_BYTES / 2, "only {} spans fit", load.acked.len());

    // The SDK meets the full budget over both of its exporters, and waits.
    let said = ["grpc", "http"].map(|kind| home.path().join(format!("sdk-{kind}.log")));
    let mut sdks = [sdk(&python, "grpc", &emberd.grpc(), &said[0]), sdk(&python, "http", &emberd.http(), &said[1])];
    let was_refused = |said: &std::path::PathBuf| std::fs::read_to_string(said).unwrap().contains("Transient error");
    until("the SDK is refused over both exporters", async || said.iter().all(was_refused)).await;
    for (sdk, said) in sdks.iter_mut().zip(&said) {
        assert!(sdk.try_wait().unwrap().is_none(), "the SDK gave up: {}", std::fs::read_to_string(said).unwrap());
    }

    let sink = sink.open();
    for (sdk, said) in sdks.iter_mut().zip(&said) {
        until("the SDK lets go of its spans", async || sdk.try_wait().unwrap().is_some()).await;
        let said = std::fs::read_to_string(said).unwrap();
        assert!(!said.contains("Failed to export"), "the SDK dropped its spans: {said}");
    }
    for kind in ["grpc", "http"] {
        for number in 0..SDK_SPANS {
            let name = format!("sdk {kind} {number}");
            until(&name, async || sink.has(&name)).await;
        }
    }

    // Twice the budget more, while `keep` is a day: what has been passed gives way.
    let more = load.acked.len() + 2 * BUDGET_BYTES / BODY_BYTES;
    until("passed segments give way", async || {
        for over_grpc in [true, false] {
            if let Heard::Full = load.send(over_grpc).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        load.acked.len() >= more
    })
    .await;
    for number in &load.acked {
        let name = format!("load {number}");
        until(&name, async || sink.has(&name)).await;
    }
    let peak = peak_rss_bytes(emberd.pid());
    assert!(peak < RSS_BYTES_MAX, "emberd took {} MiB", peak >> 20);
    assert!(emberd.terminate().success());
}
