//! Forwarding to an endpoint whose acknowledgement is enough.
//!
//! Promise: loads are begun in the log's order, several under way at once; the cursor moves over the unbroken run of those that
//! are done. While all are under way the log fills up behind them, so loads grow with the load.

use std::collections::VecDeque;
use std::sync::Arc;

use emberd_model::Offset;
use emberd_model::ledger::{Fate, Tally};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio_util::sync::CancellationToken;

use super::Config;
use super::courier::{Courier, Delivered};
use super::feed::{Feed, Piece};
use super::load::Load;
use super::release::Releases;
use super::source::Source;

/// A load with the offset that the cursor may move to once it and all before it are done, and what became of spans beside it.
struct Outgoing {
    load: Load,
    end: Offset,
    aside: Tally,
}

pub(super) async fn run(config: &Config, mut source: Source, courier: &Arc<Courier>, stop: CancellationToken) {
    let in_flight = if config.phoenix.is_some() { 1 } else { config.in_flight.max(1) };
    let mut feed = Feed::new(courier.clone(), config.phoenix.is_some(), u64::MAX);
    let mut releases = Releases::new(&config.name, courier.clone(), None);
    let mut under_way = FuturesOrdered::new();
    let mut waiting: VecDeque<Outgoing> = VecDeque::new();
    loop {
        if waiting.is_empty() && under_way.len() < in_flight {
            feed.fill(&mut source).await;
            waiting = loads(&mut feed.pieces, courier.bytes_max());
        }
        while under_way.len() < in_flight
            && let Some(outgoing) = waiting.pop_front()
        {
            under_way.push_back(deliver(courier, outgoing));
        }
        if feed.is_at_end() && waiting.is_empty() && under_way.is_empty() {
            break;
        }
        let wants_read = waiting.is_empty() && under_way.len() < in_flight && feed.wants_read(&source);
        let hold_until = feed.hold_until(&source);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = under_way.next(), if !under_way.is_empty() => done.reach(&mut source),
            () = source.due(), if source.is_behind() => source.store().await,
            read = source.next(courier.bytes_max()), if wants_read => feed.take_in(read, &mut source).await,
            () = tokio::time::sleep_until(hold_until), if wants_read => feed.hurry(&mut source).await,
            tried = releases.next() => releases.settle(tried, &mut source).await,
        }
    }
    // What is under way may come to its end; the cursor stays behind what does not.
    let linger = async {
        while let Some(done) = under_way.next().await {
            done.reach(&mut source);
        }
    };
    let _ = tokio::time::timeout(config.stop_within, linger).await;
    source.store().await;
}

/// A load that is done with.
struct Done {
    end: Offset,
    tally: Tally,
}

impl Done {
    fn reach(self, source: &mut Source) {
        source.progress.sent(self.end);
        source.reach(self.end, &self.tally);
    }
}

async fn deliver(courier: &Courier, outgoing: Outgoing) -> Done {
    let Outgoing { load, end, aside: mut tally } = outgoing;
    if load.spans > 0 {
        let accounts = load.parts.iter().map(|part| (part.first, part.accounts.clone())).collect::<Vec<_>>();
        let delivered = courier.deliver(load).await;
        for (first, accounts) in accounts {
            tally.merge(&delivered.tally(first, &accounts));
        }
    }
    Done { end, tally }
}

impl Delivered {
    /// What became of the spans of a part that begins at `first`.
    fn tally(&self, first: Offset, accounts: &emberd_model::ledger::Runs) -> Tally {
        let mut tally = accounts.tally(&Fate::Done);
        let spans = accounts.spans();
        for (at, reason) in &self.aside {
            let index = at.0.wrapping_sub(first.0);
            if let Some(account) = accounts.at(index).filter(|_| index < spans) {
                tally.add(account, Fate::Done, -1);
                tally.add(account, Fate::Quarantined(reason.clone()), 1);
            }
        }
        tally
    }
}

/// Pieces laid end to end into loads of at most `bytes_max`, where a piece alone is not larger. Takes all of them.
fn loads(pieces: &mut VecDeque<Piece>, bytes_max: usize) -> VecDeque<Outgoing> {
    let mut loads: VecDeque<Outgoing> = VecDeque::new();
    for Piece { part, end, aside } in pieces.drain(..) {
        let bytes = part.as_ref().map_or(0, |part| part.body.len());
        match loads.back_mut() {
            Some(last) if last.load.bytes + bytes <= bytes_max => {
                part.into_iter().for_each(|part| last.load.push(part));
                last.end = end;
                last.aside.merge(&aside);
            }
            _ => {
                let mut load = Load::default();
                part.into_iter().for_each(|part| load.push(part));
                loads.push_back(Outgoing { load, end, aside });
            }
        }
    }
    loads
}

#[cfg(test)]
mod tests {
    use emberd_model::ledger::Reason;

    use super::*;
    use crate::forwarder::tests::part;

    /// Loads are filled in order, each up to the bound, and what is passed without being sent goes with the one before it.
    #[test]
    fn loads_are_filled_in_order() {
        let piece = |index: u64| Piece { part: Some(part(index, 1)), end: Offset(index + 1), aside: Tally::default() };
        let mut pieces: VecDeque<Piece> = (0..10).map(piece).collect();
        let (size, mut shed) = (part(0, 1).body.len(), Tally::default());
        shed.merge(&part(10, 7).accounts.tally(&Fate::Shed(Reason::new("share"))));
        pieces.push_back(Piece { part: None, end: Offset(17), aside: shed });
        let loads = loads(&mut pieces, 3 * size + 1);
        assert_eq!(loads.iter().map(|load| load.load.spans).collect::<Vec<_>>(), [3, 3, 3, 1]);
        assert_eq!(loads.iter().map(|load| load.end.0).collect::<Vec<_>>(), [3, 6, 9, 17]);
        assert_eq!(loads[3].aside.spans(), 7);
        let mut large = VecDeque::from([Piece { part: Some(part(0, 5)), end: Offset(5), aside: Tally::default() }]);
        assert_eq!(super::loads(&mut large, 1).len(), 1, "what is too large goes alone");
    }
}
