//! A plugin at the other end of a gRPC channel: an address of somebody else's, or the socket of a child.
//!
//! Promise: messages are bounded before they are read; a peer that does not answer costs a deadline; one that answers too late, or as
//! another than before, is seen at the next description.

use std::sync::Arc;
use std::time::Duration;

use emberd_evaluators_kit::wire::CONTRACT;
use emberd_proto::evaluator::v1::evaluator_client::EvaluatorClient;
use emberd_proto::evaluator::v1::{self as pb};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::catalog::{self, Catalog};
use crate::config::Bounds;
use crate::names::cut;
use crate::plugin::{Fault, Line, Live, Plugin, Responses, State};

const STATUS_BYTES_MAX: usize = 256;
/// How long a plugin may take to say that it is still there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// How to reach an address.
pub(crate) fn endpoint(url: &str, bounds: &Bounds) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
    let scheme = endpoint.uri().scheme_str();
    let endpoint = match scheme {
        Some("http") => endpoint,
        Some("https") => {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint.tls_config(tls).map_err(|error| error.to_string())?
        }
        _ => return Err("it begins with http:// or https://".into()),
    };
    // No HTTP/2 pings: gRPC's servers close a connection that has many of them. A peer that is gone costs deadlines.
    let patience = bounds.deadline.min(Duration::from_secs(5));
    Ok(endpoint.tcp_keepalive(Some(Duration::from_secs(30))).connect_timeout(patience))
}

fn client(channel: Channel, message_bytes: usize) -> EvaluatorClient<Channel> {
    EvaluatorClient::new(channel).max_decoding_message_size(message_bytes).max_encoding_message_size(message_bytes)
}

/// What the plugin offers.
pub(crate) async fn describe(plugin: &Plugin, channel: &Channel, within: Duration) -> Result<Catalog, String> {
    let mut client = client(channel.clone(), plugin.config.bounds.message_bytes);
    let asked = timeout(within, client.describe(pb::DescribeRequest { contract: CONTRACT })).await;
    let told =
        asked.map_err(|_| "it does not describe itself in time".to_owned())?.map_err(|status| told_by(&status))?;
    catalog::read(&plugin.name, told.into_inner())
}

/// Whether the plugin still says the same of itself.
pub(crate) async fn lives(plugin: &Plugin, channel: &Channel) -> bool {
    describe(plugin, channel, SIGN_OF_LIFE).await.is_ok()
}

/// Asks for these examples.
pub(crate) fn call(
    channel: Channel,
    requests: Vec<pb::EvaluateRequest>,
    message_bytes: usize,
    deadline: Instant,
) -> Responses {
    let answer = async move {
        let mut request = Request::new(stream::iter(requests));
        // The plugin learns the deadline; a second later than it is kept here, so that it is kept here.
        request.set_timeout(deadline.saturating_duration_since(Instant::now()) + SIGN_OF_LIFE);
        client(channel, message_bytes).evaluate(request).await.map(tonic::Response::into_inner)
    };
    stream::once(answer).try_flatten().map_err(|status| Fault::Broken(told_by(&status))).boxed()
}

fn told_by(status: &Status) -> String {
    format!("{:?}: {}", status.code(), cut(status.message(), STATUS_BYTES_MAX))
}

/// Keeps an address described until `stop`.
pub(crate) async fn keep(plugin: &Arc<Plugin>, url: &str, stop: &CancellationToken) {
    let bounds = &plugin.config.bounds;
    let channel = match endpoint(url, bounds) {
        Ok(endpoint) => endpoint.connect_lazy(),
        Err(why) => return plugin.is_down(&why, u32::MAX),
    };
    let mut failures = 0_u32;
    loop {
        match describe(plugin, &channel, bounds.start.min(Duration::from_secs(10))).await {
            Ok(catalog) => {
                failures = 0;
                match plugin.state() {
                    State::Ready(live) if live.catalog == catalog => plugin.lives(&live),
                    _ => plugin.is_now(State::Ready(Arc::new(Live::new(Line::Grpc(channel.clone()), catalog, None)))),
                }
            }
            Err(why) => {
                failures = failures.saturating_add(1);
                plugin.is_down(&why, failures);
            }
        }
        let pause = match failures {
            0 => bounds.describe_every,
            failures => crate::child::backoff(failures).min(bounds.describe_every),
        };
        let doubt = async {
            match plugin.state() {
                State::Ready(live) => live.suspected.notified().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
            () = doubt => {}
        }
    }
}
