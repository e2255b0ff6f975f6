//! Who may send, as it is now: keys and browser pages, which may change while the doors are open.
//!
//! Promise: a request is let in by what counted when it came, and a change refuses none whose key is in both; whether keys are asked for at
//! all does not change, for a port that asks for none must not be reachable.
//! Kept by: `daemon/tests/it/reload.rs`.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Config;
use crate::http::Origins;
use crate::keys::Keys;

/// A handle on who may send; all clones are one.
#[derive(Clone, Debug)]
pub struct Senders(Arc<watch::Sender<Now>>);

#[derive(Debug)]
pub(crate) struct Now {
    pub(crate) keys: Option<Keys>,
    pub(crate) origins: Origins,
}

impl Senders {
    /// What the configuration says, taken out of it.
    pub(crate) fn of(config: &mut Config) -> Self {
        let now = Now { keys: config.keys.take(), origins: std::mem::take(&mut config.cors_origins) };
        Self(Arc::new(watch::Sender::new(now)))
    }

    pub(crate) fn borrow(&self) -> watch::Ref<'_, Now> {
        self.0.borrow()
    }

    /// From now on these may send. Keys where none are asked for, or none where they are, leave it as it is: false.
    pub fn set(&self, keys: Option<Keys>, origins: Origins) -> bool {
        let mut is_taken = true;
        self.0.send_modify(|now| {
            now.origins = origins;
            match (&now.keys, keys) {
                (Some(older), Some(newer)) => now.keys = Some(newer.following(older)),
                (None, None) => (),
                _ => is_taken = false,
            }
        });
        is_taken
    }
}
