//! An OTLP endpoint that takes spans or fails on them, as it is told, over gRPC and over HTTP.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use emberd_model::wire;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};

use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Status};

use crate::forwarder::{Compression, Config, Endpoint};

/// What the sink does with a request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Takes its spans.
    Take,
    /// Takes its spans but so many, with a message.
    TakePart(i64, &'static str),
    /// Takes its spans and breaks the connection before it says so.
    TakeAndBreak,
    /// Says no, over gRPC.
    Status(Code, &'static str),
    /// The same with a wait in seconds.
    StatusWait(Code, i64),
    /// Says no, over HTTP, with `Retry-After` where that is not empty.
    Http(u16, &'static str),
    /// Says 200 and shows a web page.
    WebPage,
    /// Breaks the connection.
    Break,
    /// Never answers.
    Hang,
    /// Answers one byte at a time, and slowly.
    Drip,
    /// Answers without an end.
    Endless,
}

/// A request as it was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The numbers of its spans.
    pub(super) spans: Vec<u64>,
    pub(super) body: Bytes,
    pub(super) headers: HeaderMap,
}

type Script = Box<dyn Fn(&Seen, usize) -> Act + Send + Sync>;

/// What happened, and what is to happen.
pub(super) struct Sink {
    /// Decides by the request and by how many came before it.
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    taken: Mutex<Vec<u64>>,
    message_bytes_max: usize,
}

/// A sink that listens, until it is dropped.
pub(super) struct Listening {
    pub(super) sink: Arc<Sink>,
    pub(super) address: SocketAddr,
    pub(super) over: Over,
    _server: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Grpc,
    Http,
}

pub(super) const BOTH: [Over; 2] = [Over::Grpc, Over::Http];

impl Sink {
    pub(super) fn that(script: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Self::of_size(64 << 20, script)
    }

    /// A sink whose messages are bounded.
    pub(super) fn of_size(
        message_bytes_max: usize,
        script: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (seen, taken) = Default::default();
        Arc::new(Self { script: Mutex::new(Box::new(script)), seen, taken, message_bytes_max })
    }

    pub(super) fn now(&self, script: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Every request so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The numbers of the spans that were taken, in order of arrival.
    pub(super) fn taken(&self) -> Vec<u64> {
        self.taken.lock().unwrap().clone()
    }

    fn decide(&self, body: Bytes, headers: HeaderMap) -> Act {
        let number = |found: wire::Found<'_>| u64::from_be_bytes(found.span.span_id.0) - 1;
        let seen = Seen { spans: wire::spans(&body).map(number).collect(), body, headers };
        let mut all = self.seen.lock().unwrap();
        let act = (self.script.lock().unwrap())(&seen, all.len());
        if matches!(act, Act::Take | Act::TakePart(..) | Act::TakeAndBreak) {
            self.taken.lock().unwrap().extend(&seen.spans);
        }
        all.push(seen);
        act
    }

    pub(super) async fn listen(self: &Arc<Self>, over: Over) -> Listening {
        self.listen_at(over, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn listen_at(self: &Arc<Self>, over: Over, address: SocketAddr) -> Listening {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        match over {
            Over::Grpc => server.spawn(serve_grpc(self.clone(), listener)),
            Over::Http => server.spawn(serve_http(self.clone(), listener)),
        };
        Listening { sink: self.clone(), address, over, _server: server }
    }
}

impl Listening {
    pub(super) fn endpoint(&self) -> Endpoint {
        match self.over {
            Over::Grpc => Endpoint::Grpc(format!("http://{}", self.address)),
            Over::Http => Endpoint::Http(format!("http://{}/v1/traces", self.address)),
        }
    }

    /// A forwarder to here that is in a hurry.
    pub(super) fn config(&self) -> Config {
        use std::time::Duration;
        let _ = rustls::crypto::ring::default_provider().install_default();
        Config {
            backoff: crate::forwarder::Backoff { base: Duration::from_millis(10), max: Duration::from_millis(50) },
            patience: Duration::from_millis(60),
            timeout: Duration::from_millis(500),
            stop_within: Duration::from_millis(200),
            compression: Compression::None,
            ..Config::otlp("sink", self.endpoint())
        }
    }
}

fn success(act: &Act) -> Bytes {
    let partial_success = match act {
        Act::TakePart(rejected_spans, said) => {
            Some(ExportTracePartialSuccess { rejected_spans: *rejected_spans, error_message: (*said).to_owned() })
        }
        _ => None,
    };
    ExportTraceServiceResponse { partial_success }.encode_to_vec().into()
}

async fn serve_grpc(sink: Arc<Sink>, listener: TcpListener) {
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tonic::transport::Server::builder().add_service(Door(sink)).serve_with_incoming(incoming).await.unwrap();
}

#[derive(Clone)]
struct Door(Arc<Sink>);

impl NamedService for Door {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl tower_service::Service<http::Request<Body>> for Door {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .max_decoding_message_size(door.0.message_bytes_max);
            Ok(grpc.unary(door, request).await)
        })
    }
}

impl UnaryService<Bytes> for Door {
    type Response = Vec<Bytes>;
    type Future = Answering<Result<tonic::Response<Vec<Bytes>>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let sink = self.0.clone();
        Box::pin(async move {
            let headers = request.metadata().clone().into_headers();
            match sink.decide(request.into_inner(), headers) {
                Act::Status(code, said) => Err(Status::new(code, said)),
                Act::StatusWait(code, seconds) => Err(Status::with_details(code, "later", retry_info(seconds))),
                Act::Hang => std::future::pending().await,
                Act::Endless => Ok(tonic::Response::new(vec![Bytes::from(vec![0; 5 << 20])])),
                act @ (Act::Take | Act::TakePart(..)) => Ok(tonic::Response::new(vec![success(&act)])),
                act => panic!("{act:?} is not for gRPC"),
            }
        })
    }
}

fn retry_info(seconds: i64) -> Bytes {
    use crate::forwarder::answer::{RetryDelay, RetryInfo, RpcDetail, RpcStatus};
    let value = RetryInfo { retry_delay: Some(RetryDelay { seconds, nanos: 0 }) }.encode_to_vec();
    let detail = RpcDetail { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value };
    RpcStatus { details: vec![detail] }.encode_to_vec().into()
}

async fn serve_http(sink: Arc<Sink>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let sink = sink.clone();
        connections.spawn(async move {
            let _ = answer_http(&sink, connection).await;
        });
    }
}

/// Answers the requests of one connection.
async fn answer_http(sink: &Sink, mut connection: TcpStream) -> io::Result<()> {
    let mut read = Vec::new();
    loop {
        let (headers, body) = request_of(&mut connection, &mut read).await?;
        let body = inflated(&headers, body);
        let act = if body.len() > sink.message_bytes_max { Act::Http(413, "") } else { sink.decide(body, headers) };
        match act {
            Act::Take | Act::TakePart(..) => {
                respond(&mut connection, 200, "content-type: application/x-protobuf\r\n", &success(&act)).await?;
            }
            Act::Http(status, wait) => {
                let wait = if wait.is_empty() { String::new() } else { format!("retry-after: {wait}\r\n") };
                respond(&mut connection, status, &wait, b"no").await?;
            }
            Act::WebPage => respond(&mut connection, 200, "content-type: text/html\r\n", b"<html>").await?,
            Act::Break | Act::TakeAndBreak => {
                socket_reset(&connection);
                return Ok(());
            }
            Act::Hang => std::future::pending().await,
            Act::Drip => {
                connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
                loop {
                    connection.write_all(b"x").await?;
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
            Act::Endless => {
                connection.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                loop {
                    connection.write_all(b"10000\r\n").await?;
                    connection.write_all(&[b'x'; 0x10000]).await?;
                    connection.write_all(b"\r\n").await?;
                }
            }
            act => panic!("{act:?} is not for HTTP"),
        }
    }
}

/// Closes with a reset instead of an orderly end.
fn socket_reset(connection: &TcpStream) {
    #[allow(deprecated, reason = "a linger of zero does not block")]
    connection.set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

async fn respond(connection: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> io::Result<()> {
    let reason = StatusCode::from_u16(status).unwrap();
    let head = format!("HTTP/1.1 {reason}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body).await
}

async fn request_of(connection: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<(HeaderMap, Vec<u8>)> {
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        more(connection, read).await?;
    };
    let head = String::from_utf8(read.drain(..end).collect()).unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    let pairs = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let header = |(name, value): (&str, &str)| -> (http::HeaderName, http::HeaderValue) {
        (name.parse().unwrap(), value.parse().unwrap())
    };
    let headers: HeaderMap = pairs.map(header).collect();
    let length: usize = headers[http::header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
    while read.len() < length {
        more(connection, read).await?;
    }
    Ok((headers, read.drain(..length).collect()))
}

async fn more(connection: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<()> {
    match connection.read_buf(read).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn inflated(headers: &HeaderMap, body: Vec<u8>) -> Bytes {
    use std::io::Read;
    let mut out = Vec::new();
    match headers.get(http::header::CONTENT_ENCODING).map(|value| value.to_str().unwrap()) {
        None => out = body,
        Some("gzip") => drop(flate2::read::GzDecoder::new(&body[..]).take(1 << 30).read_to_end(&mut out).unwrap()),
        Some("zstd") => out = zstd::bulk::decompress(&body, 1 << 30).unwrap(),
        Some(other) => panic!("content-encoding {other}"),
    }
    out.into()
}

/// Bytes as a message, in both directions.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<Bytes>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<Bytes>;
    type Error = tonic::Status;

    fn encode(&mut self, chunks: Vec<Bytes>, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        out.reserve(chunks.iter().map(Bytes::len).sum());
        chunks.into_iter().for_each(|chunk| out.put(chunk));
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, answer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(answer.copy_to_bytes(answer.remaining())))
    }
}
