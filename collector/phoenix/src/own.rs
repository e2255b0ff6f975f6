//! emberd's own datasets in Phoenix: which of Phoenix's datasets is ours.
//!
//! Promise: whoever writes a dataset of emberd's, by hand or for a job, writes the same one: it says in its description whose it is, and bears
//! emberd's name for it. A dataset of that name which is somebody else's is left alone; ours then has a few digits of its id behind the name.
//! Kept by: `emberd-evaluators-jobs`' `tests/outbox.rs`, against the real Phoenix.

use std::fmt::Display;

use crate::client::Client;
use crate::datasets::{Action, Item, Uploaded};
use crate::rest::Error;

/// Digits of the id that tell datasets of one name apart.
const DIGITS: usize = 8;

/// How one of Phoenix's datasets is known to be this one of emberd's.
fn mark(id: &dyn Display) -> String {
    format!("From emberd's dataset {id}.")
}

impl Client {
    /// Makes Phoenix's copy of this dataset what `items` are, under its name or the one beside it: that name, and what became of it.
    ///
    /// `id` is emberd's own, as it is written everywhere: a UUID.
    pub async fn upload_own_dataset(
        &self,
        id: &(dyn Display + Sync),
        name: &str,
        items: &[Item],
    ) -> Result<(String, Uploaded), Error> {
        let mark = mark(id);
        let mut name = name.to_owned();
        if let Some(known) = self.dataset_by_name(&name).await?
            && known.description.as_deref() != Some(&mark)
        {
            let digits: String = id.to_string().chars().filter(char::is_ascii_hexdigit).take(DIGITS).collect();
            name = format!("{name} ({digits})");
        }
        let done = self.upload_dataset(Action::Update, &name, Some(&mark), items).await?;
        Ok((name, done))
    }
}
