//! Taking traces and sessions out of Phoenix for good.
//!
//! On the wire: `DELETE /v1/traces/{id}` and `DELETE /v1/sessions/{id}`, which take spans and annotations along.
//! Repeating a call is harmless: what is gone is gone.

use emberd_model::TraceId;
use reqwest::Method;

use crate::client::Client;
use crate::rest::{Error, Size};

impl Client {
    /// Deletes a trace with its spans and annotations; whether there was one.
    pub async fn delete_trace(&self, trace: TraceId) -> Result<bool, Error> {
        self.delete_named("traces", &trace.to_string()).await
    }

    /// Deletes a session with all its traces; whether there was one.
    pub async fn delete_session(&self, session: &str) -> Result<bool, Error> {
        self.delete_named("sessions", session).await
    }

    /// Whether it holds a trace of this id, in whatever project.
    pub async fn has_trace(&self, trace: TraceId) -> Result<bool, Error> {
        self.knows_trace(trace).await.map_err(Error::from)
    }

    async fn delete_named(&self, what: &str, name: &str) -> Result<bool, Error> {
        let url = self.url(&["v1", what, name], &[])?;
        match self.call(Method::DELETE, url, None, Size::Small).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
