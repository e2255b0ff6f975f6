//! A call of a model with its money and its answer: found, or reserved, asked, settled and stored, and only then read.
//!
//! Promise: whoever takes an item after a crash finds every answer that was settled; only a call between its reservation and its settling
//! can be made twice. A call leaves only when its highest price was set aside. A settled price is the endpoint's usage at the table's price,
//! or the whole reservation where the usage is not known.

use std::time::Duration;

use emberd_evaluators_kit::{Class, Failure};
use emberd_store::Error;
use emberd_store::jobs::{Answer, CallKey, Money, Reserved, Settled, Spent};
use tokio_util::sync::CancellationToken;

use crate::engine::Shared;
use crate::job::Running;
use crate::leases::Held;
use crate::price;
use crate::provider::{Answered, Bill, Failed, Provider, completion};

/// How often money is looked for that is set aside for other calls, and for how long.
const MONEY_WAIT: Duration = Duration::from_millis(200);
const MONEY_WAIT_MAX: Duration = Duration::from_secs(20);

/// What is asked.
pub(crate) struct Ask<'a> {
    pub(crate) provider: &'a Provider,
    pub(crate) model: &'a str,
    /// The request's body.
    pub(crate) body: Vec<u8>,
    pub(crate) messages: usize,
    pub(crate) max_tokens: u32,
    /// Under which others may use the answer, if it is good.
    pub(crate) shared: Option<Vec<u8>>,
    /// Under which only this item does.
    pub(crate) own: Vec<u8>,
}

/// What came of it.
pub(crate) enum Asked {
    /// An answer, paid by this item now or before, or by somebody else.
    Answer(Paid),
    /// None, for this reason.
    Failed(Failure, Money),
    /// Money that would be enough is set aside for other calls: ask again soon.
    Wait,
    /// The item is another's by now, or emberd stops: write nothing.
    Lost,
}

pub(crate) struct Paid {
    pub(crate) body: Vec<u8>,
    pub(crate) latency: Duration,
    /// 0 where somebody else paid.
    pub(crate) money: Money,
    /// Whether somebody else paid.
    pub(crate) cached: bool,
}

/// Asks, if nobody has the answer. `is_good` says whether others may use it.
pub(crate) async fn ask(
    shared: &Shared,
    job: &Running,
    held: &Held,
    ask: Ask<'_>,
    is_good: impl Fn(&[u8]) -> bool,
) -> Asked {
    match found(shared, held, &ask).await {
        Ok(Some(paid)) => return Asked::Answer(paid),
        Ok(None) => {}
        Err(_) => return Asked::Lost,
    }
    let tokens_in = price::tokens_max(ask.body.len(), ask.messages);
    let highest = price::highest(&shared.config.prices, ask.model, tokens_in, ask.max_tokens.into());
    let highest = highest.unwrap_or_default();
    let Ok(_slot) = job.slots.acquire().await else { return Asked::Lost };
    let mut waited = Duration::ZERO;
    let (place, call) = loop {
        let place = match ask.provider.place().await {
            Ok(place) => place,
            Err(failure) => return Asked::Failed(failure, Money(0)),
        };
        if shared.stopping.is_cancelled() {
            return Asked::Lost;
        }
        match reserve(shared, held, highest).await {
            Ok(Reserved::Call(call)) => break (place, call),
            Ok(Reserved::Lost) | Err(_) => return Asked::Lost,
            Ok(Reserved::NoBudget) => drop(place),
        }
        match no_budget(shared, held, highest).await {
            Asked::Wait if waited < MONEY_WAIT_MAX => {}
            asked => return asked,
        }
        // Calls on their way will leave most of what is set aside for them.
        tokio::time::sleep(MONEY_WAIT).await;
        waited += MONEY_WAIT;
    };
    let answered = ask.provider.ask(place, ask.body.clone()).await;
    let (spent, asked) = settled(shared, held, &ask, highest, answered, is_good);
    let key = CallKey { item: held.key, fence: held.fence, call };
    let never = CancellationToken::new();
    // The money is gone: this is tried for as long as it takes, or until emberd is stopped for good.
    match shared.patiently(&never, || shared.store.settle_call(key, spent.clone(), shared.now())).await {
        Ok(Settled::Held) => asked,
        Ok(Settled::Lost | Settled::NoCall) => Asked::Lost,
        Err(error) => {
            tracing::error!(error = %shared.told(&error), item = ?held.key, "a call cannot be settled");
            Asked::Lost
        }
    }
}

async fn found(shared: &Shared, held: &Held, ask: &Ask<'_>) -> Result<Option<Paid>, Error> {
    let digests: Vec<Vec<u8>> = std::iter::once(ask.own.clone()).chain(ask.shared.clone()).collect();
    let found = shared.patiently(&shared.stopping, || shared.store.answers(digests.clone())).await?;
    let Some((text, money)) = found.into_iter().flatten().next() else { return Ok(None) };
    let (head, body) = text.split_once('\n').unwrap_or(("", &text));
    let (micros, payer) = head.split_once(' ').unwrap_or((head, ""));
    let is_own = payer == payer_of(held);
    Ok(Some(Paid {
        body: body.as_bytes().to_vec(),
        latency: Duration::from_micros(micros.parse().unwrap_or(0)),
        money: if is_own { money } else { Money(0) },
        cached: !is_own,
    }))
}

fn payer_of(held: &Held) -> String {
    let key = held.key;
    format!("{} {} {}", key.job, key.nr, key.step)
}

async fn reserve(shared: &Shared, held: &Held, highest: Money) -> Result<Reserved, Error> {
    let reserve = || shared.store.reserve_call(held.key, held.fence, highest, shared.now());
    shared.patiently(&shared.stopping, reserve).await
}

/// Whether it never will be enough, or only now is not.
async fn no_budget(shared: &Shared, held: &Held, highest: Money) -> Asked {
    let job = match shared.patiently(&shared.stopping, || shared.store.job(held.key.job)).await {
        Ok(Some(job)) => job,
        Ok(None) | Err(_) => return Asked::Lost,
    };
    let budget = job.budget.unwrap_or_default();
    if job.spent.0.saturating_add(highest.0) <= budget.0 {
        return Asked::Wait;
    }
    let left = price::dollars(Money((budget.0 - job.spent.0).max(0)));
    let message = format!("this call may cost ${}, and ${left} of the budget are left", price::dollars(highest));
    Asked::Failed(Failure::new(Class::Budget, message), Money(0))
}

/// What is written down, and what the caller gets once it is.
fn settled(
    shared: &Shared,
    held: &Held,
    ask: &Ask<'_>,
    highest: Money,
    answered: Result<Answered, Failed>,
    is_good: impl Fn(&[u8]) -> bool,
) -> (Spent, Asked) {
    let Answered { body, latency } = match answered {
        Ok(answered) => answered,
        Err(Failed { failure, bill }) => {
            let money = if bill == Bill::Nothing { Money(0) } else { highest };
            return (Spent { money, tokens: 0, answer: None }, Asked::Failed(failure, money));
        }
    };
    let usage = completion(&body).usage;
    let money = price::actual(&shared.config.prices, ask.model, &usage).unwrap_or(highest);
    let digest = ask.shared.as_ref().filter(|_| is_good(&body)).unwrap_or(&ask.own).clone();
    let text = format!("{} {}\n{}", latency.as_micros(), payer_of(held), String::from_utf8_lossy(&body));
    let spent = Spent { money, tokens: usage.sums().2, answer: Some(Answer { digest, body: text }) };
    (spent, Asked::Answer(Paid { body, latency, money, cached: false }))
}
