//! Asks an endpoint whether it would take spans, for `emberd doctor`.
//!
//! Promise: an export without a span goes out, so that address, key and queue are seen as a forwarder sees them, and nothing is stored.
//! Kept by: `daemon/tests/it/doctor.rs`.

use std::sync::Arc;
use std::time::Duration;

use emberd_model::Clock;
use http::HeaderValue;

use super::load::Load;
use super::transport::Transport;
use super::{Config, Error};

/// Why an endpoint takes nothing now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub struct Refusal {
    /// Its word in the metrics: `busy`, `unreachable`, `timed_out`, `unauthorized`, `misdirected`, ..
    pub class: &'static str,
    /// The code and the beginning of what it said.
    pub said: String,
}

/// Sends an export without a span, once, and waits for `timeout` at most.
///
/// # Errors
/// On an address or a key that cannot be used; what the endpoint answers is the inner result.
pub async fn probe(config: &Config, timeout: Duration, clock: Arc<dyn Clock>) -> Result<Result<(), Refusal>, Error> {
    let config = Config { timeout, ..config.clone() };
    let transport = Transport::new(&config.endpoint, &config, clock)?;
    if let Some(key) = &config.key {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", key.read()?)).map_err(|_| Error::KeyText)?;
        header.set_sensitive(true);
        transport.set_authorization(Some(header));
    }
    let answer = transport.send(&Load::default()).await;
    Ok(answer.map(drop).map_err(|failure| Refusal { class: failure.class(), said: failure.said }))
}
