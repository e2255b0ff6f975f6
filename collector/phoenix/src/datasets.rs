//! Phoenix's datasets: written by name with stable ids, read by version.
//!
//! Promise: an upload that is repeated, for want of an answer, changes nothing: examples carry ids of ours, and Phoenix makes a new
//! version only where one differs. What is read is what was written, but for NULs ([`text`]), which [`Uploaded`] counts.
//! On the wire: `POST /v1/datasets/upload?sync=true`, one request for all examples; `GET .../examples`, one answer for all.
//! Not here: what the fields of an example mean (`emberd-evaluators-datasets`); splits, labels.
//! Kept by: `tests/evaluation.rs`, against the real Phoenix.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::rest::{Data, Error, Size};
use crate::text;

/// An example as Phoenix keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Our id, stable over versions.
    pub id: String,
    /// What goes in.
    pub input: Map<String, Value>,
    /// What is to come out.
    pub output: Map<String, Value>,
    /// Whatever else is known.
    pub metadata: Map<String, Value>,
}

/// An example, read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Stored {
    /// Phoenix's own id: what a run must name.
    pub node_id: String,
    /// The example.
    #[serde(flatten)]
    pub item: Item,
}

/// What an upload does with a dataset of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Makes it; [`Error::Conflict`] if there is one.
    Create,
    /// Adds the examples, and changes those whose ids it has. Makes it if there is none.
    Append,
    /// As [`Action::Append`], and the examples that are not named leave the new version. Makes it if there is none.
    Update,
}

/// What became of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The dataset's id.
    pub dataset_id: String,
    /// The version that holds the examples: a new one only if something differs.
    pub version_id: String,
    /// Examples that are new.
    pub created: u64,
    /// Examples that have changed.
    pub updated: u64,
    /// Examples that are no longer in it.
    pub deleted: u64,
    /// NULs taken out before sending: that many characters differ from ours.
    pub nuls_removed: usize,
}

/// A dataset, as listed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Dataset {
    /// Phoenix's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is, in words.
    pub description: Option<String>,
    /// Examples in its newest version.
    pub example_count: u64,
}

/// A version of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// Phoenix's id.
    pub version_id: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
}

/// The examples of one version.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Examples {
    /// The dataset's id.
    pub dataset_id: String,
    /// The version that they belong to.
    pub version_id: String,
    /// All of them.
    pub examples: Vec<Stored>,
}

#[derive(Deserialize)]
struct Answer {
    dataset_id: String,
    version_id: String,
    num_created_examples: u64,
    num_updated_examples: u64,
    num_deleted_examples: u64,
}

impl Client {
    /// The dataset of that name, if there is one.
    pub async fn dataset_by_name(&self, name: &str) -> Result<Option<Dataset>, Error> {
        let name = name.replace('\0', "");
        let found: Vec<Dataset> = self.list(&["v1", "datasets"], &[("name", &name)]).await?;
        Ok(found.into_iter().find(|dataset| dataset.name == name))
    }

    /// Writes examples, and waits until they are stored. Harmless to repeat, except [`Action::Create`], which then says
    /// [`Error::Conflict`]. Two items of one id are [`Error::Refused`].
    pub async fn upload_dataset(
        &self,
        action: Action,
        name: &str,
        description: Option<&str>,
        items: &[Item],
    ) -> Result<Uploaded, Error> {
        let of = |field: fn(&Item) -> Value| Value::Array(items.iter().map(field).collect());
        let mut request = json!({
            "action": action,
            "name": name,
            "inputs": of(|item| item.input.clone().into()),
            "outputs": of(|item| item.output.clone().into()),
            "metadata": of(|item| item.metadata.clone().into()),
            "example_ids": of(|item| item.id.clone().into()),
        });
        if let Some(description) = description {
            request["description"] = description.into();
        }
        let nuls_removed = text::remove_nuls(&mut request);
        let url = self.url(&["v1", "datasets", "upload"], &[("sync", "true")])?;
        let answer: Data<Answer> = self.ask(Method::POST, url, Some(&request), Size::Whole).await?;
        Ok(Uploaded {
            dataset_id: answer.data.dataset_id,
            version_id: answer.data.version_id,
            created: answer.data.num_created_examples,
            updated: answer.data.num_updated_examples,
            deleted: answer.data.num_deleted_examples,
            nuls_removed,
        })
    }

    /// A dataset's versions, newest first. Of a dataset that is not there, none.
    pub async fn dataset_versions(&self, dataset_id: &str) -> Result<Vec<Version>, Error> {
        self.list(&["v1", "datasets", dataset_id, "versions"], &[]).await
    }

    /// The examples of a version; of the newest, if none is named.
    pub async fn dataset_examples(&self, dataset_id: &str, version_id: Option<&str>) -> Result<Examples, Error> {
        let version = version_id.map(|id| ("version_id", id));
        let url = self.url(&["v1", "datasets", dataset_id, "examples"], version.as_slice())?;
        let answer: Data<Examples> = self.ask(Method::GET, url, None, Size::Whole).await?;
        Ok(answer.data)
    }

    /// Deletes a dataset, with its experiments.
    pub async fn delete_dataset(&self, dataset_id: &str) -> Result<(), Error> {
        let url = self.url(&["v1", "datasets", dataset_id], &[])?;
        self.call(Method::DELETE, url, None, Size::Small).await.map(drop)
    }
}
