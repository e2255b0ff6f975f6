//! SIGHUP: the configuration is read anew, and what of it can be is taken up by the rooms that run.
//!
//! Promise: the whole new configuration is read first; one that is wrong changes nothing, and all that is wrong with it is logged. What
//! changed is logged key by key, secrets aside, and so is what a restart is needed for, each time until there was one. No request is
//! refused for a change whose key, page or token counts before and after it.
//! Not here: which keys are taken up (`config::changes`); how a room changes while it works (the rooms' own handles).
//! Kept by: `tests/it/reload.rs`, `tests/it/rollback.rs`.

use emberd_api::Tuner;
use emberd_intake::Senders;

use crate::commands::Where;
use crate::config::{Config, Settings};
use crate::switches::Switches;

/// Handles on what can change while emberd runs.
pub(crate) struct Controls {
    /// Who may send.
    pub(crate) senders: Senders,
    /// Who may call the API, and what is there for whom.
    pub(crate) tuner: Tuner,
    /// What can be switched off.
    pub(crate) switches: Switches,
}

/// What counts now, and where to look for what is to count next.
pub(crate) struct Reload {
    place: Where,
    settings: Settings,
    has_identity: bool,
    controls: Controls,
}

impl Config {
    /// What a later one is held against, once the rooms are built of it.
    pub(crate) fn remembered(&self, place: &Where) -> impl FnOnce(Controls) -> Reload + use<> {
        let (place, settings, has_identity) = (place.clone(), self.settings(), self.identity.is_some());
        move |controls| Reload { place, settings, has_identity, controls }
    }
}

impl Reload {
    /// Does it. Everything that is between the beginning and the end of a reload happens within this call.
    pub(crate) fn run(&mut self) {
        tracing::info!("SIGHUP: reading the configuration anew"); // the reload begins
        match self.take_up() {
            Ok(()) => tracing::info!("reload: done"),
            Err(faults) => {
                faults.iter().for_each(|fault| tracing::error!("reload: {fault}"));
                tracing::error!("reload: nothing was changed: {} mistakes", faults.len());
            }
        } // the reload ends
    }

    fn take_up(&mut self) -> Result<(), Vec<String>> {
        let loaded = Config::load(self.place.config.as_deref(), self.place.data_dir.clone());
        let mut newer = loaded.map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let settings = newer.settings();
        // All that can still fail comes before anything is changed.
        let wrong = |error: anyhow::Error| vec![format!("{error:#}")];
        let (keys, origins) = newer.intake.senders().map_err(wrong)?;
        let identity = newer.identity.take();
        let keeps_identity = identity.is_some() == self.has_identity;
        let tuning = newer.api.tuning(identity.filter(|_| keeps_identity), newer.flags).map_err(wrong)?;

        let takes_keys = self.controls.senders.set(keys, origins);
        self.controls.tuner.tune(tuning);
        if !newer.flags.evaluations.enabled && self.controls.switches.stop_judging() {
            tracing::warn!(
                "reload: evaluations are off: no job and no rule runs; once on again, they run after a restart"
            );
        }
        if newer.rolled_back && self.controls.switches.stop_recording() {
            self.controls.tuner.forget();
            tracing::warn!("reload: emberd was rolled back: nothing is recorded; spans are kept and forwarded as ever");
        }
        self.tell(&settings, takes_keys, keeps_identity);
        for warning in newer.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(())
    }

    /// Says what changed, and remembers what counts now.
    fn tell(&mut self, settings: &Settings, takes_keys: bool, keeps_identity: bool) {
        let changes = self.settings.changes(settings);
        if changes.is_empty() {
            tracing::info!("reload: nothing changed in the configuration");
        }
        for change in changes {
            let waits = !change.is_reloaded
                || (!takes_keys && change.key == "[intake] keys_file")
                || (!keeps_identity && change.key.starts_with("[identity]"));
            if waits {
                tracing::warn!("reload: {change}: needs a restart");
            } else {
                self.settings.take_up(&change.key, settings);
                tracing::info!("reload: {change}");
            }
        }
    }
}
