//! Clients that send what no library would, and look at all of the answer.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::house::in_time;

pub(crate) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

pub(crate) type Outgoing = BoxBody<Bytes, Infallible>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

/// One connection.
pub(crate) struct Client {
    sender: Sender,
    at: SocketAddr,
    _connection: JoinSet<()>,
}

enum Sender {
    One(http1::SendRequest<Outgoing>),
    Two(http2::SendRequest<Outgoing>),
}

/// Everything that came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

/// A body that is sent piece by piece, and ends when this is dropped.
pub(crate) struct Pipe(mpsc::UnboundedSender<Bytes>);

impl Pipe {
    pub(crate) fn new() -> (Self, Outgoing) {
        let (send, receive) = mpsc::unbounded_channel();
        let pieces = UnboundedReceiverStream::new(receive).map(|piece| Ok(Frame::data(piece)));
        (Self(send), BoxBody::new(StreamBody::new(pieces)))
    }

    pub(crate) fn send(&self, piece: impl Into<Bytes>) {
        self.0.send(piece.into()).expect("the connection is there");
    }

    /// The same, to a connection that may have gone.
    pub(crate) fn try_send(&self, piece: impl Into<Bytes>) {
        let _ = self.0.send(piece.into());
    }
}

pub(crate) fn whole(body: impl Into<Bytes>) -> Outgoing {
    BoxBody::new(Full::new(body.into()))
}

/// A body without a declared length.
pub(crate) fn chunked(body: impl Into<Bytes>) -> Outgoing {
    let (pipe, outgoing) = Pipe::new();
    pipe.send(body);
    outgoing
}

impl Client {
    pub(crate) async fn connect(at: SocketAddr, version: Version) -> Self {
        let stream = in_time(TcpStream::connect(at)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = TokioIo::new(stream);
        let mut connection = JoinSet::new();
        let sender = match version {
            Version::One => {
                let (sender, driver) = http1::handshake(io).await.unwrap();
                connection.spawn(async { drop(driver.await) });
                Sender::One(sender)
            }
            Version::Two => {
                let (sender, driver) =
                    http2::Builder::new(TokioExecutor::new()).max_frame_size(1 << 20).handshake(io).await.unwrap();
                connection.spawn(async { drop(driver.await) });
                Sender::Two(sender)
            }
        };
        Self { sender, at, _connection: connection }
    }

    pub(crate) async fn send(&mut self, request: Request<Outgoing>) -> Result<Answer, hyper::Error> {
        let ready = async {
            match &mut self.sender {
                Sender::One(sender) => sender.ready().await,
                Sender::Two(sender) => sender.ready().await,
            }
        };
        in_time(ready).await?;
        in_time(self.begin(request)).await
    }

    /// Sends, without a bound on how long the answer may take.
    pub(crate) fn begin(
        &mut self,
        mut request: Request<Outgoing>,
    ) -> impl Future<Output = Result<Answer, hyper::Error>> + Send + 'static {
        let response: futures_util::future::BoxFuture<'static, _> = match &mut self.sender {
            Sender::One(sender) => {
                let host = self.at.to_string().parse().unwrap();
                request.headers_mut().insert(http::header::HOST, host);
                Box::pin(sender.send_request(request))
            }
            Sender::Two(sender) => {
                *request.uri_mut() = format!("http://{}{}", self.at, request.uri()).parse().unwrap();
                Box::pin(sender.send_request(request))
            }
        };
        async move {
            let (head, body) = response.await?.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
        }
    }

    /// A gRPC call with this message, framed.
    pub(crate) async fn call(&mut self, message: &[u8]) -> Answer {
        self.send(grpc(whole(framed(0, message)))).await.unwrap()
    }
}

/// A gRPC request to the export method.
pub(crate) fn grpc(body: Outgoing) -> Request<Outgoing> {
    post(EXPORT, "application/grpc", body)
}

pub(crate) fn post(path: &str, media: &str, body: Outgoing) -> Request<Outgoing> {
    Request::builder().method(Method::POST).uri(path).header(CONTENT_TYPE, media).body(body).unwrap()
}

pub(crate) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

impl Status {
    pub(crate) fn has(&self, detail: &str) -> bool {
        self.details.iter().any(|any| any.type_url == format!("type.googleapis.com/google.rpc.{detail}"))
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// gRPC's status: of the trailers, or of a trailers-only answer.
    pub(crate) fn code(&self) -> i32 {
        let status = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"));
        status.unwrap_or_else(|| panic!("no grpc-status: {self:?}")).to_str().unwrap().parse().unwrap()
    }

    /// What `grpc-status-details-bin` says.
    pub(crate) fn details(&self) -> Status {
        let details = self.header("grpc-status-details-bin").expect("details");
        Status::decode(&*BASE64_STANDARD_NO_PAD.decode(details).unwrap()).unwrap()
    }

    /// The message of a successful gRPC answer.
    pub(crate) fn message(&self) -> &[u8] {
        assert_eq!((self.code(), self.body[0]), (0, 0), "{self:?}");
        let length = u32::from_be_bytes(self.body[1..5].try_into().unwrap()) as usize;
        assert_eq!(self.body.len(), 5 + length);
        &self.body[5..]
    }

    /// The error body of OTLP/HTTP, in whichever form it came.
    pub(crate) fn status_body(&self) -> Status {
        match self.header("content-type") {
            Some("application/x-protobuf") => Status::decode(&*self.body).unwrap(),
            Some("application/json") => {
                let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
                let any = |detail: &serde_json::Value| Any {
                    type_url: detail["@type"].as_str().unwrap().to_owned(),
                    value: Vec::new(),
                };
                Status {
                    code: value["code"].as_i64().unwrap() as i32,
                    message: value["message"].as_str().unwrap().to_owned(),
                    details: value["details"].as_array().unwrap().iter().map(any).collect(),
                }
            }
            other => panic!("content-type {other:?}"),
        }
    }

    /// Whether OTLP says that a client sends this again.
    pub(crate) fn is_retryable(&self) -> bool {
        if self.headers.contains_key("grpc-status") {
            match self.code() {
                1 | 4 | 10 | 11 | 14 | 15 => true,
                8 => self.details().has("RetryInfo"),
                _ => false,
            }
        } else {
            matches!(self.status.as_u16(), 429 | 502 | 503 | 504)
        }
    }
}

/// Sends bytes over a bare connection, and reads until the server closes it.
pub(crate) async fn raw(at: SocketAddr, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let exchange = move || {
        let mut stream = std::net::TcpStream::connect(at)?;
        stream.write_all(&bytes)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    in_time(tokio::task::spawn_blocking(exchange)).await.unwrap()
}
