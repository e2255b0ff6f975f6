//! A load generator of OTLP/gRPC traces whose shape can be turned: connections, spans a request, bytes a span, prompts, pace.
//!
//! Requests are encoded once; before each is sent its ids, and the numbers of its prompts, are written into the bytes, so that no two spans
//! are alike and the generator costs little beside the server. Run as a process of its own (`emberd-benches load`), it prints one JSON line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::{Buf, BufMut, Bytes};
use clap::Args;
use http::uri::PathAndQuery;
use serde_json::json;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::payload::{self, mix};

#[derive(Args, Clone, Debug)]
pub(crate) struct Load {
    /// Where to send
    #[arg(long, default_value = "http://127.0.0.1:24317")]
    pub(crate) target: String,
    #[arg(long, default_value_t = 2)]
    pub(crate) connections: usize,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 8)]
    pub(crate) in_flight: usize,
    /// Spans in each request
    #[arg(long, default_value_t = 100)]
    pub(crate) spans: u64,
    /// About so many bytes of text in each span
    #[arg(long, default_value_t = 1_200)]
    pub(crate) text: usize,
    /// How many prompts the traces name
    #[arg(long, default_value_t = 500)]
    pub(crate) prompts: u64,
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
    /// Requests a second; as fast as answers come, otherwise
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Stop after about so many spans
    #[arg(long)]
    pub(crate) total: Option<u64>,
}

impl Load {
    /// The shape that figures are of unless they say otherwise: requests of 100 spans of 1.7 kB, 2 connections x 8 in flight.
    pub(crate) fn usual(seconds: f64) -> Self {
        Self {
            target: format!("http://{}", crate::server::SERVER),
            connections: 2,
            in_flight: 8,
            spans: 100,
            text: 1_500,
            prompts: 500,
            seconds,
            rate: None,
            total: None,
        }
    }

    /// As arguments of this program.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut all = vec!["load".to_owned()];
        let mut put = |key: &str, value: String| all.extend([format!("--{key}"), value]);
        put("target", self.target.clone());
        put("connections", self.connections.to_string());
        put("in-flight", self.in_flight.to_string());
        put("spans", self.spans.to_string());
        put("text", self.text.to_string());
        put("prompts", self.prompts.to_string());
        put("seconds", self.seconds.to_string());
        if let Some(rate) = self.rate {
            put("rate", rate.to_string());
        }
        if let Some(total) = self.total {
            put("total", total.to_string());
        }
        all
    }
}

/// An encoded request, and where its ids and prompts stand.
struct Template {
    body: Vec<u8>,
    /// Of each span: trace id, span id, parent (none for a root), the prompt's digits (of a root).
    places: Vec<Place>,
}

struct Place {
    trace: usize,
    span: usize,
    parent: Option<usize>,
    prompt: Option<usize>,
}

impl Template {
    fn of(load: &Load) -> anyhow::Result<Self> {
        let body = payload::sized(load.spans, load.text);
        // prost writes fields in order: after the trace id (tag, length, 16 bytes) come span id and parent.
        let mut places = Vec::new();
        for number in 0..load.spans {
            let ids = payload::ids(number);
            let from = places.last().map_or(0, |place: &Place| place.span);
            let trace = find(&body, &ids.trace, from).context("a trace id of the template")?;
            let span = trace + 18;
            ensure!(body[span..span + 8] == ids.span, "span {number} is not where it should be");
            let parent = ids.parent.map(|_| span + 10);
            let prompt = ids.parent.is_none().then(|| find(&body, payload::PROMPT.as_bytes(), span)).flatten();
            places.push(Place { trace, span, parent, prompt: prompt.map(|at| at + payload::PROMPT.len()) });
        }
        Ok(Self { body, places })
    }

    /// Writes the ids of request number `request` of run `seed` into `body`.
    fn patch(&self, body: &mut [u8], seed: u64, request: u64, prompts: u64) {
        let (mut trace, mut root) = ([0; 16], [0; 8]);
        for (nth, place) in self.places.iter().enumerate() {
            let number = request * self.places.len() as u64 + nth as u64;
            let id = mix(seed.wrapping_add(number)).to_be_bytes();
            if place.parent.is_none() {
                trace[..8].copy_from_slice(&mix(u64::from_be_bytes(id)).to_be_bytes());
                trace[8..].copy_from_slice(&id);
                root = id;
            }
            body[place.trace..place.trace + 16].copy_from_slice(&trace);
            body[place.span..place.span + 8].copy_from_slice(&id);
            if let Some(parent) = place.parent {
                body[parent..parent + 8].copy_from_slice(&root);
            }
            if let Some(at) = place.prompt {
                let digits = format!("{:06}", mix(number) % prompts);
                body[at..at + 6].copy_from_slice(digits.as_bytes());
            }
        }
    }
}

fn find(body: &[u8], what: &[u8], from: usize) -> Option<usize> {
    body[from..].windows(what.len()).position(|window| window == what).map(|at| from + at)
}

/// Requests as they are; of answers, only that they came.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = ();
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
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;
    fn decode(&mut self, body: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        body.advance(body.remaining());
        Ok(Some(()))
    }
}

struct Shared {
    load: Load,
    template: Template,
    seed: u64,
    begun: Instant,
    requests: u64,
    next: AtomicU64,
    failed: AtomicU64,
}

impl Shared {
    /// The next request's number; none when it is over.
    async fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Relaxed);
        if number >= self.requests {
            return None;
        }
        if let Some(rate) = self.load.rate {
            let due = self.begun + Duration::from_secs_f64(number as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        (self.begun.elapsed().as_secs_f64() < self.load.seconds).then_some(number)
    }
}

/// What a worker saw: the latency of each answered request, in microseconds.
async fn work(shared: Arc<Shared>, channel: Channel) -> Vec<u32> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(1 << 20);
    let path = PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let mut latencies = Vec::new();
    while let Some(number) = shared.next().await {
        let mut body = shared.template.body.clone();
        shared.template.patch(&mut body, shared.seed, number, shared.load.prompts);
        let begun = Instant::now();
        let sent = async {
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            client.unary(Request::new(Bytes::from(body)), path.clone(), Raw).await
        };
        match sent.await {
            Ok(_) => latencies.push(begun.elapsed().as_micros() as u32),
            Err(_) => {
                shared.failed.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    latencies
}

async fn connect(load: &Load) -> anyhow::Result<Vec<Channel>> {
    let endpoint = Endpoint::from_shared(load.target.clone())?.tcp_nodelay(true).timeout(Duration::from_secs(60));
    let until = Instant::now() + Duration::from_secs(20);
    let mut channels = Vec::new();
    while channels.len() < load.connections {
        match endpoint.connect().await {
            Ok(channel) => channels.push(channel),
            Err(error) if Instant::now() > until => return Err(error).context("nothing listens"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    Ok(channels)
}

/// Sends the load and prints what came of it.
pub(crate) fn run(load: &Load) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channels = connect(load).await?;
        let clock = payload::now();
        let shared = Arc::new(Shared {
            template: Template::of(load)?,
            seed: mix(clock),
            begun: Instant::now(),
            requests: load.total.map_or(u64::MAX, |total| total.div_ceil(load.spans)),
            next: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            load: load.clone(),
        });
        let mut workers = tokio::task::JoinSet::new();
        for channel in channels {
            for _ in 0..load.in_flight {
                workers.spawn(work(shared.clone(), channel.clone()));
            }
        }
        let mut latencies = Vec::new();
        while let Some(of_one) = workers.join_next().await {
            latencies.extend(of_one?);
        }
        let took = shared.begun.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let at = |share: f64| {
            let last = latencies.len().saturating_sub(1);
            latencies.get((share * last as f64).round() as usize).map_or(f64::NAN, |&us| f64::from(us) / 1e3)
        };
        let spans = latencies.len() as u64 * load.spans;
        let report = json!({
            "spans_acked": spans,
            "requests_failed": shared.failed.load(Relaxed),
            "spans_per_s": spans as f64 / took,
            "bytes_per_span": shared.template.body.len() as f64 / load.spans as f64,
            "seconds": took,
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
        });
        println!("{report}");
        Ok(())
    })
}
