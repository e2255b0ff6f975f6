//! The three ways that an application's exporter speaks OTLP, carrying bodies as they are.

use bytes::{Buf, BufMut, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    HttpProtobuf,
    HttpJson,
}

impl Transport {
    pub const ALL: [Self; 3] = [Self::Grpc, Self::HttpProtobuf, Self::HttpJson];
}

/// One request in both forms.
#[derive(Clone, Debug)]
pub struct Export {
    pub protobuf: Bytes,
    pub json: Bytes,
}

/// Sends exports to one emberd.
pub struct Client {
    grpc: tonic::client::Grpc<Channel>,
    http: reqwest::Client,
    url: String,
}

impl Client {
    pub async fn connect(emberd: &super::process::Emberd) -> Self {
        Self::at(emberd.grpc(), emberd.http()).await
    }

    pub async fn at(grpc: String, url: String) -> Self {
        let channel = Channel::from_shared(grpc).unwrap().connect().await.unwrap();
        Self { grpc: tonic::client::Grpc::new(channel), http: reqwest::Client::new(), url }
    }

    /// Sends one request; Ok only if all of it was acknowledged.
    pub async fn send(&mut self, transport: Transport, export: &Export) -> Result<(), String> {
        match transport {
            Transport::Grpc => self.send_grpc(export.protobuf.clone()).await,
            Transport::HttpProtobuf => self.send_http("application/x-protobuf", export.protobuf.clone()).await,
            Transport::HttpJson => self.send_http("application/json", export.json.clone()).await,
        }
    }

    pub async fn send_grpc(&mut self, body: Bytes) -> Result<(), String> {
        self.grpc.ready().await.map_err(|e| e.to_string())?;
        let path = http::uri::PathAndQuery::from_static(EXPORT);
        let answer =
            self.grpc.unary(tonic::Request::new(body), path, Raw).await.map_err(|status| status.to_string())?;
        if answer.get_ref().is_empty() { Ok(()) } else { Err(format!("partial success: {:?}", answer.get_ref())) }
    }

    async fn send_http(&self, kind: &str, body: Bytes) -> Result<(), String> {
        let request = self.http.post(&self.url).header("content-type", kind).body(body);
        let answer = request.send().await.map_err(|e| e.to_string())?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|e| e.to_string())?;
        if status.is_success() && (body.is_empty() || &body[..] == b"{}") {
            Ok(())
        } else {
            Err(format!("{status} {}", String::from_utf8_lossy(&body)))
        }
    }
}

/// Bytes in, bytes out.
#[derive(Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, body: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        out.put(body);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
