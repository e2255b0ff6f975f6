//! What the archive holds of somebody, and its going.
//!
//! Not here: files of other emberds' logs in the same archive: whoever writes them takes out of them.

use std::collections::BTreeSet;

use anyhow::Context;
use emberd_archive::keeping::{Catalogue, read_file};
use emberd_archive::rows::{self, RowId};
use emberd_consumers::archiver::orders::Order;
use emberd_model::TraceId;
use emberd_store::erase::Whom;

use super::super::archive::ordered;
use super::super::books::Place;
use crate::wiring::known_log_name;

/// The traces of which a span in the archive names them.
pub(super) async fn traces_naming(place: &Place, whom: &Whom) -> anyhow::Result<BTreeSet<TraceId>> {
    let mut traces = BTreeSet::new();
    if whom.users.is_empty() && whom.sessions.is_empty() {
        return Ok(traces);
    }
    each_row(place, |row| {
        let named = row.user.is_some_and(|user| whom.users.contains(user))
            || row.session.is_some_and(|session| whom.sessions.contains(session));
        if named {
            traces.insert(row.trace_id);
        }
    })
    .await?;
    Ok(traces)
}

/// How many spans of these traces are in it.
pub(super) async fn spans_of(place: &Place, traces: &BTreeSet<TraceId>) -> anyhow::Result<u64> {
    let mut spans = 0;
    if !traces.is_empty() {
        each_row(place, |row| spans += u64::from(traces.contains(&row.trace_id))).await?;
    }
    Ok(spans)
}

/// Takes these traces out of it.
pub(super) async fn erase(place: &Place, traces: &BTreeSet<TraceId>) -> anyhow::Result<()> {
    if !place.config.archive.enabled || traces.is_empty() {
        return Ok(());
    }
    // An order is a file of bounded length.
    let all: Vec<String> = traces.iter().map(TraceId::to_string).collect();
    for traces in all.chunks(TRACES_AT_ONCE) {
        let none = BTreeSet::new;
        let order = Order::Erase { users: none(), sessions: none(), traces: traces.iter().cloned().collect() };
        ordered(place, &order, |_| ()).await?;
    }
    Ok(())
}

/// Traces in an order.
const TRACES_AT_ONCE: usize = 10_000;

async fn each_row(place: &Place, mut each: impl FnMut(&RowId<'_>)) -> anyhow::Result<()> {
    if !place.config.archive.enabled {
        return Ok(());
    }
    let (own, archive) = (known_log_name(&place.log_dir())?, place.archive()?);
    let catalogue = Catalogue::read(&*archive).await.context("cannot read the archive's manifest")?;
    for kept in catalogue.files().into_iter().filter(|kept| kept.name.log == own.as_str()) {
        let failed = || format!("cannot read {} of the archive; give the command again", kept.file.name);
        let bytes = read_file(&*archive, &kept.file).await.with_context(failed)?;
        for chunk in rows::open(bytes).with_context(failed)? {
            let chunk = chunk.with_context(failed)?;
            for row in 0..chunk.len() {
                each(&chunk.id(row).with_context(failed)?);
            }
        }
    }
    Ok(())
}
