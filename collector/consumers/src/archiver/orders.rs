//! What operators ask of the archiver: files in a directory, so that it is the same whether emberd runs or not.
//!
//! Promise: an order is carried out by whoever writes the archive, once its file is there, and answered beside it; an order that was under way
//! when emberd died is carried out again, which changes nothing where it was done. A damaged order is answered, not obeyed.
//! On disk:  `DIR/NAME.order`, JSON; `DIR/NAME.answer`, JSON, in its place when it is done. Both appear by rename.
//! Not here: who asks (`emberd erase`, `emberd archive`).
//! Kept by: `tests::orders_are_carried_out_and_answered`.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use emberd_archive::keeping::place::BoxError;
use emberd_archive::keeping::{Archive, Error, Rewritten, Totals};
use emberd_archive::{Part, rows};
use emberd_log::replace_file;
use emberd_model::TraceId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An order is a few ids; a file that is longer is none.
const BYTES_MAX: u64 = 1 << 20;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Small files become larger ones now, those of today among them.
    Compact,
    /// Spans go, for good: of these users, sessions, traces, as spans name them; trace ids in hex.
    Erase {
        /// As `user.id` says.
        #[serde(default)]
        users: BTreeSet<String>,
        /// As `session.id` says.
        #[serde(default)]
        sessions: BTreeSet<String>,
        /// In hex.
        #[serde(default)]
        traces: BTreeSet<String>,
    },
}

/// The directory of orders.
#[derive(Clone, Debug)]
pub struct Orders(PathBuf);

impl Orders {
    /// The orders in `dir`, which need not be there.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Gives an order; its name, by which the answer is asked for. Blocks on the disk.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn give(&self, name: &str, order: &Order) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        replace_file(&self.path(name, "order"), &serde_json::to_vec(order)?)
    }

    /// The answer to an order, which is taken away with it; none yet.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn answer(&self, name: &str) -> io::Result<Option<Value>> {
        let path = self.path(name, "answer");
        match std::fs::read(&path) {
            Ok(bytes) => {
                std::fs::remove_file(&path)?;
                Ok(Some(serde_json::from_slice(&bytes)?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes an order back that nobody has answered.
    pub fn take_back(&self, name: &str) {
        let _ = std::fs::remove_file(self.path(name, "order"));
    }

    /// The oldest order by name, if there is one; unreadable ones are answered at once.
    fn next(&self) -> io::Result<Option<(String, Order)>> {
        let listed = match std::fs::read_dir(&self.0) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let names: BTreeSet<String> = listed
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".order")?.to_owned()))
            .collect();
        for name in names {
            let path = self.path(&name, "order");
            let is_long = std::fs::metadata(&path)?.len() > BYTES_MAX;
            let read = if is_long { Err("too long".to_owned()) } else { Ok(std::fs::read(&path)?) };
            match read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string())) {
                Ok(order) => return Ok(Some((name, order))),
                Err(why) => self.done(&name, &json!({ "error": format!("not an order: {why}") }))?,
            }
        }
        Ok(None)
    }

    fn done(&self, name: &str, answer: &Value) -> io::Result<()> {
        replace_file(&self.path(name, "answer"), &serde_json::to_vec(answer)?)?;
        std::fs::remove_file(self.path(name, "order"))
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.0.join(format!("{name}.{kind}"))
    }
}

/// Carries out the orders that wait; whoever calls it is the archive's writer.
///
/// # Errors
/// The directory cannot be used. What the archive refuses is the order's answer.
pub async fn carry_out(orders: &Orders, archive: &mut Archive, today: emberd_archive::Day) -> io::Result<()> {
    while let Some((name, order)) = orders.next()? {
        let done = obey(&order, archive, today).await;
        let answer = done.unwrap_or_else(|error| json!({ "error": super::chain(&error) }));
        orders.done(&name, &answer)?;
    }
    Ok(())
}

/// Carries out one order.
///
/// # Errors
/// What the archive says.
pub async fn obey(order: &Order, archive: &mut Archive, today: emberd_archive::Day) -> Result<Value, Error> {
    match order {
        Order::Compact => {
            let when = emberd_archive::keeping::Compaction { open_files: 2, ..Default::default() };
            let (mut before, mut after, mut steps) = (0, 0, 0);
            while let Some(done) = archive.compact(today, &when, merge).await? {
                (before, after, steps) = (before + done.files_before, after + done.files_after, steps + 1);
            }
            Ok(json!({ "steps": steps, "files_before": before, "files_after": after }))
        }
        Order::Erase { users, sessions, traces } => {
            let (users, sessions) = (users.clone(), sessions.clone());
            let traces: HashSet<TraceId> = traces.iter().filter_map(|trace| trace.parse().ok()).collect();
            let rewrite = move |file: Bytes| -> Result<Option<Rewritten>, BoxError> {
                let is_kept = |row: &rows::RowId<'_>| {
                    !traces.contains(&row.trace_id)
                        && !row.user.is_some_and(|user| users.contains(user))
                        && !row.session.is_some_and(|session| sessions.contains(session))
                };
                let rows::Rewritten { part, erased, .. } = rows::rewrite(file, is_kept)?;
                let parts = part.into_iter().collect();
                Ok((erased > 0).then_some(Rewritten { parts, erased, changed: 0 }))
            };
            let mut totals = Totals::default();
            archive.rewrite_where(&mut totals, |_| true, rewrite).await?;
            let Totals { files_read, files_rewritten, erased, .. } = totals;
            Ok(json!({ "files": files_read, "files_rewritten": files_rewritten, "spans": erased }))
        }
    }
}

/// Files of a day as fewer.
pub(super) fn merge(files: Vec<Bytes>) -> Result<Vec<Part>, BoxError> {
    Ok(rows::merge(files)?)
}
