//! Puts a load on the wire, once, and reads the answer.
//!
//! On the wire: OTLP/gRPC with the batches' own bytes as the message, not decoded, its frames gathered (`gathered.rs`); or OTLP/HTTP, whose content
//! type is exactly `application/x-protobuf`, as Phoenix compares it letter by letter.
//! Each try is bounded in time, each answer in bytes. Not here: what is done about an answer (`courier.rs`).

use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use emberd_model::Clock;
use futures_util::future::{BoxFuture, poll_fn};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::client::GrpcService;
use tonic::transport::{Channel, ClientTlsConfig};
use tower_service::Service;

use super::answer::{self, Failure, Kind, Taken};
use super::gathered::Gathered;
use super::load::Load;
use super::{Compression, Config, Endpoint, Error};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// OTLP 1.11: a client must bound what it reads; 4 MiB is what it recommends.
const ANSWER_BYTES_MAX: usize = 4 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A link slower than this is taken for dead.
const BYTES_PER_SECOND_MIN: u32 = 1 << 20;

pub(super) struct Transport {
    way: Way,
    compression: Compression,
    timeout: Duration,
    headers: HeaderMap,
    /// What proves to the endpoint who sends; read anew when it is refused.
    authorization: RwLock<Option<HeaderValue>>,
    clock: Arc<dyn Clock>,
}

enum Way {
    Grpc(Channel),
    Http { client: reqwest::Client, url: String },
}

impl Transport {
    pub(super) fn new(endpoint: &Endpoint, config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let way = match endpoint {
            Endpoint::Grpc(url) => Way::Grpc(channel(url)?),
            Endpoint::Http(url) => Way::Http { client: client()?, url: url.clone() },
        };
        let (compression, timeout, headers) = (config.compression, config.timeout, config.headers.clone());
        Ok(Self { way, compression, timeout, headers, authorization: RwLock::new(None), clock })
    }

    /// Uses this key from now on.
    pub(super) fn set_authorization(&self, authorization: Option<HeaderValue>) {
        *self.authorization.write().unwrap_or_else(PoisonError::into_inner) = authorization;
    }

    /// Sends once.
    pub(super) async fn send(&self, load: &Load) -> Result<Taken, Failure> {
        let timeout = self.timeout + Duration::from_secs((load.bytes as u64).div_ceil(u64::from(BYTES_PER_SECOND_MIN)));
        let sending = async {
            match &self.way {
                Way::Grpc(channel) => self.call(channel.clone(), load.chunks()).await,
                Way::Http { client, url } => self.post(client, url, load.body()).await,
            }
        };
        let late = || Failure::new(Kind::TimedOut, "timeout", format_args!("no answer within {timeout:?}"));
        tokio::time::timeout(timeout, sending).await.unwrap_or_else(|_| Err(late()))
    }

    /// A unary call by hand: the message goes out as the chunks that it is made of, where tonic's client would copy it into one piece.
    async fn call(&self, mut channel: Channel, chunks: Vec<Bytes>) -> Result<Taken, Failure> {
        let message = Message::of(chunks, self.compression);
        let mut request = http::Request::new(tonic::body::Body::new(message.body()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static(EXPORT);
        *request.version_mut() = http::Version::HTTP_2;
        let headers = request.headers_mut();
        *headers = self.all_headers();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        if let Some(coding) = message.coding {
            headers.insert("grpc-encoding", HeaderValue::from_static(coding));
        }
        let unready = |error: tonic::transport::Error| {
            Failure::new(Kind::Unreachable, "no connection", answer::innermost(&error))
        };
        poll_fn(|cx| GrpcService::poll_ready(&mut channel, cx)).await.map_err(unready)?;
        let broken = |error: tonic::transport::Error| answer::of_grpc(&tonic::Status::from_error(error.into()));
        let answer = GrpcService::call(&mut channel, request).await.map_err(broken)?;
        let (head, body) = answer.into_parts();
        if let Some(status) = tonic::Status::from_header_map(&head.headers) {
            return ended(&status, &[]);
        }
        if head.status != http::StatusCode::OK {
            return Err(answer::of_http(head.status, None, &[], self.clock.now()));
        }
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            match error.downcast::<tonic::Status>() {
                Ok(status) => answer::of_grpc(&status),
                Err(error) => Failure::new(Kind::Broken, "an endless answer", error),
            }
        })?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        match tonic::Status::from_header_map(&trailers) {
            Some(status) => ended(&status, &body.to_bytes()),
            None => Err(Failure::new(Kind::Broken, "an answer without a status", head.status)),
        }
    }

    async fn post(&self, client: &reqwest::Client, url: &str, body: Bytes) -> Result<Taken, Failure> {
        let mut request = client.post(url).headers(self.all_headers());
        request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
        // Phoenix refuses "identity": without compression there is no such header.
        request = match self.compression {
            Compression::None => request.body(body),
            Compression::Gzip => request.header(header::CONTENT_ENCODING, "gzip").body(gzip(&body)),
            Compression::Zstd => request.header(header::CONTENT_ENCODING, "zstd").body(zstd(&body)),
        };
        let mut answer = request.send().await.map_err(broken)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Failure::new(Kind::Broken, answer.status(), "an endless answer"));
            }
            body.extend_from_slice(&chunk);
        }
        let kind = answer.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        match answer.status() {
            http::StatusCode::OK | http::StatusCode::ACCEPTED if kind.starts_with(b"text/html") => {
                Err(Failure::new(Kind::Misdirected, answer.status(), "a web page, not an answer of OTLP"))
            }
            http::StatusCode::OK | http::StatusCode::ACCEPTED => Ok(answer::taken(&body)),
            status => Err(answer::of_http(status, answer.headers().get(header::RETRY_AFTER), &body, self.clock.now())),
        }
    }

    fn all_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        let authorization = self.authorization.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        headers
    }
}

/// A channel that connects when it is used, and again when the connection broke, asking for the address anew.
fn channel(url: &str) -> Result<Channel, Error> {
    let unusable = || Error::Url { url: url.to_owned() };
    let mut endpoint = tonic::transport::Endpoint::from_shared(url.to_owned()).map_err(|_| unusable())?;
    endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(false)
        .http2_adaptive_window(true)
        .user_agent(AGENT)
        .map_err(|_| unusable())?;
    if endpoint.uri().host().is_none() {
        return Err(unusable());
    }
    if endpoint.uri().scheme_str() == Some("https") {
        let tls = ClientTlsConfig::new().with_native_roots();
        endpoint = endpoint.tls_config(tls).map_err(|source| Error::Tls { url: url.to_owned(), source })?;
    }
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    plain.set_nodelay(true);
    plain.set_connect_timeout(Some(CONNECT_TIMEOUT));
    Ok(endpoint.connect_with_connector_lazy(Gathering(plain)))
}

/// Connects over TCP, for writes to be gathered.
#[derive(Clone, Debug)]
struct Gathering(HttpConnector);

impl Service<http::Uri> for Gathering {
    type Response = TokioIo<Gathered<TcpStream>>;
    type Error = <HttpConnector as Service<http::Uri>>::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, to: http::Uri) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async { connecting.await.map(|tcp| TokioIo::new(Gathered::new(tcp.into_inner()))) })
    }
}

const AGENT: &str = concat!("emberd/", env!("CARGO_PKG_VERSION"));

fn client() -> Result<reqwest::Client, Error> {
    // No redirects: spans go where they were sent, or nowhere. No proxy: the environment of a daemon is no place for a route.
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(AGENT)
        .build()
        .map_err(Error::Client)
}

fn broken(error: reqwest::Error) -> Failure {
    let kind = if error.is_timeout() && !error.is_connect() { Kind::TimedOut } else { Kind::Unreachable };
    Failure::new(kind, "no answer", answer::innermost(&error))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    out.write_all(body).and_then(|()| out.finish()).expect("a Vec takes whatever is written")
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(body, 1).expect("a Vec of the bound's size takes whatever is written")
}

/// A gRPC message: one byte that says whether it is compressed, its length in four, and itself.
struct Message {
    prefix: [u8; PREFIX_BYTES],
    chunks: Vec<Bytes>,
    coding: Option<&'static str>,
}

const PREFIX_BYTES: usize = 5;

impl Message {
    fn of(chunks: Vec<Bytes>, compression: Compression) -> Self {
        let (chunks, coding) = match compression {
            Compression::None => (chunks, None),
            Compression::Gzip => (vec![gzip(&chunks.concat()).into()], Some("gzip")),
            Compression::Zstd => (vec![zstd(&chunks.concat()).into()], Some("zstd")),
        };
        let length: usize = chunks.iter().map(Bytes::len).sum();
        let mut prefix = [u8::from(coding.is_some()), 0, 0, 0, 0];
        prefix[1..].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        Self { prefix, chunks, coding }
    }

    fn body(&self) -> impl http_body::Body<Data = Bytes, Error = tonic::Status> + Send + 'static {
        let prefix = Bytes::copy_from_slice(&self.prefix);
        let chunks = std::iter::once(prefix).chain(self.chunks.clone());
        StreamBody::new(stream::iter(chunks.map(|chunk| Ok(Frame::data(chunk)))))
    }
}

/// What a status comes to, and the message before it.
fn ended(status: &tonic::Status, message: &[u8]) -> Result<Taken, Failure> {
    if status.code() != tonic::Code::Ok {
        return Err(answer::of_grpc(status));
    }
    // An answer that nobody asked to be compressed says nothing.
    Ok(answer::taken(message.get(PREFIX_BYTES..).unwrap_or_default()))
}
