//! `grpc.health.v1.Health/Check`: whether the doors take spans. `Watch` is not served; clients take that for healthy.

use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Body;
use prost::Message;

use super::frame;
use crate::body::Pieces;
use crate::export::Intake;
use crate::refusal::{Refusal, excerpt};

pub(super) const CHECK: &str = "/grpc.health.v1.Health/Check";

const REQUEST_BYTES_MAX: usize = 1024;
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
}

/// The framed answer. No key is asked for: balancers have none, and it says nothing but yes or no.
pub(super) async fn check<B>(intake: &Intake, mut body: Pieces<B>) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (message, _held) = frame::message(&mut body, REQUEST_BYTES_MAX, &intake.in_flight).await?;
    if message.compressed {
        return Err(Refusal::UnnamedCoding);
    }
    let Ok(request) = Request::decode(message.bytes) else {
        return Err(Refusal::Framing("not a HealthCheckRequest"));
    };
    match request.service.as_str() {
        "" | "opentelemetry.proto.collector.trace.v1.TraceService" => {}
        unknown => return Err(Refusal::UnknownHealth(excerpt(unknown.as_bytes()))),
    }
    let is_serving = intake.serving.load(Ordering::Relaxed) && !intake.stopping.load(Ordering::Relaxed);
    let mut answer = BytesMut::with_capacity(frame::PREFIX_BYTES + 2);
    answer.put_slice(&[0, 0, 0, 0, 2, 0x08, if is_serving { SERVING } else { NOT_SERVING }]);
    Ok(answer.freeze())
}
