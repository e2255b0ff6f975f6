//! Forwarding to an endpoint whose acknowledgement is enough.
//!
//! Promise: loads are begun in the log's order, several under way at once; the cursor moves over the unbroken run of those that
//! are done. While all are under way the log fills up behind them, so loads grow with the load.

use std::collections::VecDeque;
use std::sync::Arc;

use emberd_model::Offset;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio_util::sync::CancellationToken;

use super::courier::Courier;
use super::load::{Load, laid_end_to_end};
use super::{Config, Read, Source, prepared};

pub(super) async fn run(config: &Config, mut source: Source, courier: &Arc<Courier>, stop: CancellationToken) {
    let in_flight = if config.phoenix.is_some() { 1 } else { config.in_flight.max(1) };
    let mut under_way = FuturesOrdered::new();
    let mut waiting: VecDeque<(Load, Option<Offset>)> = VecDeque::new();
    let mut sealed = false;
    loop {
        while under_way.len() < in_flight
            && let Some((load, end)) = waiting.pop_front()
        {
            under_way.push_back(async move {
                courier.deliver(load).await;
                end
            });
        }
        if sealed && under_way.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(end) = under_way.next(), if !under_way.is_empty() => done(&mut source, end),
            () = source.due(), if source.is_behind() => source.store().await,
            read = source.next(courier.bytes_max()), if !sealed && waiting.is_empty() && under_way.len() < in_flight => {
                match read {
                    Read::Batches(batches) => {
                        let mut parts = Vec::with_capacity(batches.len());
                        for batch in &batches {
                            parts.push(prepared(batch, config.phoenix.is_some(), courier).await);
                        }
                        waiting = loads(parts, batches.last().map(emberd_model::Batch::end), courier.bytes_max());
                    }
                    Read::Sealed => sealed = true,
                    Read::Again => {}
                }
            }
        }
    }
    // What is under way may come to its end; the cursor stays behind what does not.
    let linger = async {
        while let Some(end) = under_way.next().await {
            done(&mut source, end);
        }
    };
    let _ = tokio::time::timeout(config.stop_within, linger).await;
    source.store().await;
}

fn done(source: &mut Source, end: Option<Offset>) {
    if let Some(end) = end {
        source.progress.sent(end);
        source.reach(end);
    }
}

/// Parts as loads, each with the offset that the cursor may move to once it and all before it are done.
fn loads(parts: Vec<super::Part>, end: Option<Offset>, bytes_max: usize) -> VecDeque<(Load, Option<Offset>)> {
    let pieces = parts.into_iter().flat_map(|part| part.cut(bytes_max, u64::MAX));
    let mut loads: VecDeque<_> = laid_end_to_end(pieces, bytes_max).into_iter().map(|load| (load, None)).collect();
    if let Some((_, last)) = loads.back_mut() {
        *last = end;
    }
    loads
}
