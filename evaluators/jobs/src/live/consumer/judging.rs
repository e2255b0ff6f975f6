//! Complete traces to the rules, and what comes back; and what is decided without them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use emberd_model::TraceId;
use futures_util::FutureExt as _;

use super::super::decide::{self, Told};
use super::super::gather::Whole;
use super::super::judge::Unjudged;
use super::{Consumer, Ready, aside};

/// A trace that went through the rules.
pub(super) struct Decided {
    trace: TraceId,
    /// None: it broke off.
    done: Option<Result<Told, Unjudged>>,
}

impl Consumer {
    /// Gives complete traces to the rules.
    pub(super) fn judge(&mut self) {
        let room = self.config.concurrency.max(1).saturating_sub(self.judging.len());
        let now = self.now();
        for whole in self.gather.due(now, room) {
            let (shared, rules) = (Arc::clone(&self.shared), self.rules_of(&whole));
            self.judging.spawn(async move {
                let done = AssertUnwindSafe(decide::decide(&shared, &rules, &whole)).catch_unwind().await;
                Decided { trace: whole.trace, done: done.ok() }
            });
        }
    }

    fn rules_of(&self, whole: &Whole) -> Vec<Arc<Ready>> {
        self.rules.iter().filter(|rule| rule.samples(whole.trace)).map(Arc::clone).collect()
    }

    pub(super) fn done(&mut self, done: Option<Decided>) {
        let Some(Decided { trace, done }) = done else { return };
        let now = self.now();
        match done {
            Some(Ok(told)) => {
                self.gather.decided(trace, now);
                self.count(|counters| {
                    counters.run += told.run;
                    counters.duplicate += told.duplicate;
                    counters.superseded += told.superseded;
                    counters.other += told.other;
                });
            }
            None => {
                tracing::error!(%trace, "the judging of a trace broke off");
                self.gather.settle(trace);
            }
            Some(Err(unjudged)) => {
                tracing::debug!(%trace, ?unjudged, "a trace is judged again");
                self.gather.undecided(trace);
            }
        }
    }

    pub(super) fn shed(&mut self) {
        let now = self.now();
        let shed = self.gather.shed(now);
        self.count(|counters| counters.shed += shed.len() as u64);
        for (trace, spans) in shed {
            for rule in self.rules.iter().filter(|rule| rule.samples(trace)) {
                let why = Some("there was no memory for it".to_owned());
                self.aside.push(aside(rule.id, rule.version, trace, "shed", why, spans as i64, self.shared.now()));
            }
        }
    }

    pub(super) async fn put_aside(&mut self) -> Result<(), emberd_store::Error> {
        if self.aside.is_empty() {
            return Ok(());
        }
        decide::put_aside(&self.shared, self.aside.clone()).await?;
        self.aside.clear();
        Ok(())
    }
}
