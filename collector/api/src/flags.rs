//! Feature flags: for whom a part of the API is there.
//!
//! Promise: a user is in if the sum of the UTF-16 codes of its id, modulo 100, is below the percentage, so that a user who is in stays in
//! while it grows, and the application's own check (`charCodeAt` over the id) agrees. Off, or for who is out, the routes answer 404 as
//! if they were not there. The local administrator is in wherever the flag is on.
//! Not here: what stops running where a flag is off (`emberd-daemon`).
//! Kept by: `tests::flags`.

use emberd_identity::Caller;

/// A part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Evaluations, datasets, templates, rules.
    Evaluations,
    /// Traces and what is computed from them.
    Traces,
    /// Experiments.
    Experiments,
    /// Metrics beyond those of a prompt's page.
    AdvancedMetrics,
}

/// Whether a part is there, and for how many of the users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// For anyone at all.
    pub enabled: bool,
    /// Percent of the users.
    pub rollout: u32,
}

/// All flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// [`Part::Evaluations`].
    pub evaluations: Flag,
    /// [`Part::Traces`].
    pub traces: Flag,
    /// [`Part::Experiments`].
    pub experiments: Flag,
    /// [`Part::AdvancedMetrics`].
    pub advanced_metrics: Flag,
}

impl Default for Flags {
    fn default() -> Self {
        let at = |rollout| Flag { enabled: true, rollout };
        Self { evaluations: at(100), traces: at(100), experiments: at(50), advanced_metrics: at(25) }
    }
}

impl Flags {
    fn of(&self, part: Part) -> Flag {
        match part {
            Part::Evaluations => self.evaluations,
            Part::Traces => self.traces,
            Part::Experiments => self.experiments,
            Part::AdvancedMetrics => self.advanced_metrics,
        }
    }

    /// Whether a part is there for anyone.
    pub(crate) fn is_on(&self, part: Part) -> bool {
        self.of(part).enabled
    }

    /// Whether a part is there for this caller.
    pub(crate) fn let_in(&self, part: Part, caller: &Caller) -> bool {
        let flag = self.of(part);
        flag.enabled
            && match caller {
                Caller::LocalAdministrator => true,
                Caller::User(user) => flag.lets_in(&user.subject),
                Caller::Nobody => false,
            }
    }
}

impl Flag {
    /// Whether the user of this id is among them.
    #[must_use]
    pub fn lets_in(&self, user: &str) -> bool {
        let sum: u64 = user.encode_utf16().map(u64::from).sum();
        sum % 100 < u64::from(self.rollout)
    }
}
