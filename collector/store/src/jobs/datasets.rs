//! Rows of `evaluation_datasets`: seen when public or own, changed by their creators.
//!
//! A dataset's `data` is an array of examples, or an object with the array `examples`. It may be large (100 MB): it is read by stretches, which
//! never bring the rest into emberd, though the database goes through all of it for each.

use emberd_model::UnixNanos;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::viewer::{OWN, SEEN, Viewer};
use crate::Moment;
use crate::error::Error;
use crate::fault::Fault;
use crate::library::{Page, Place};
use crate::once::{Done, Keyed, Once};
use crate::sql::{Ask, Line, binds};
use crate::store::{Store, page};
use crate::tx::{Tx, Work};

/// Examples in an answer.
const EXAMPLES_MAX: u32 = 10_000;

/// Examples in an answer of texts.
const TEXTS_MAX: u32 = 100_000;

/// What kind of examples a dataset holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetType {
    /// Questions and answers.
    QaPairs,
    /// Inputs and what should come of them.
    Completions,
    /// Texts and their classes.
    Classifications,
    /// Anything.
    Custom,
}

impl DatasetType {
    const ALL: [Self; 4] = [Self::QaPairs, Self::Completions, Self::Classifications, Self::Custom];

    /// Its name in the tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QaPairs => "qa_pairs",
            Self::Completions => "completions",
            Self::Classifications => "classifications",
            Self::Custom => "custom",
        }
    }

    /// The type of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A row of `evaluation_datasets`, without its data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dataset {
    /// Primary key.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// What is in it.
    pub description: Option<String>,
    /// What kind of examples.
    #[serde(rename = "type")]
    pub kind: DatasetType,
    /// An object.
    pub metadata: Value,
    /// Whether everyone sees it.
    pub is_public: bool,
    /// A profile.
    pub created_by: Uuid,
    /// When it was made.
    pub created_at: Moment,
    /// When it last changed.
    pub updated_at: Moment,
}

/// A dataset to be made.
#[derive(Clone, Debug)]
pub struct NewDataset {
    /// What people call it.
    pub name: String,
    /// What is in it.
    pub description: Option<String>,
    /// What kind of examples.
    pub kind: DatasetType,
    /// The examples.
    pub data: Box<RawValue>,
    /// An object.
    pub metadata: Value,
    /// Whether everyone sees it.
    pub is_public: bool,
    /// A profile.
    pub created_by: Uuid,
}

/// What of a dataset becomes otherwise; what is none stays.
#[derive(Clone, Debug, Default)]
pub struct DatasetChange {
    /// What people call it.
    pub name: Option<String>,
    /// What is in it.
    pub description: Option<String>,
    /// The examples, all of them.
    pub data: Option<Box<RawValue>>,
    /// An object.
    pub metadata: Option<Value>,
    /// Whether everyone sees it.
    pub is_public: Option<bool>,
}

/// An example of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// Its place in the data, from 0.
    pub nr: i64,
    /// As it stands there.
    pub body: Value,
}

/// What became of the deleting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetDeleted {
    /// It is gone.
    Gone,
    /// An evaluation ran on it: delete that first.
    InUse,
    /// There is none that the caller may delete.
    NotFound,
}

const DATASET: &str = "SELECT id, name, description, type, metadata, is_public, created_by, created_at, updated_at
     FROM public.evaluation_datasets WHERE ";

fn read(line: &Line) -> Result<Dataset, Fault> {
    let kind = line.text(3)?;
    Ok(Dataset {
        id: line.id(0)?,
        name: line.text(1)?,
        description: line.maybe_text(2)?,
        kind: DatasetType::parse(&kind).ok_or_else(|| Fault::damaged("the type of a dataset", &kind))?,
        metadata: line.json(4)?,
        is_public: line.bool(5)?,
        created_by: line.id(6)?,
        created_at: line.moment(7)?,
        updated_at: line.moment(8)?,
    })
}

impl Store {
    /// Makes a dataset; gives its id, or none where `created_by` names no profile.
    pub async fn create_dataset(&self, new: NewDataset, now: UnixNanos) -> Result<Option<Uuid>, Error> {
        let made = self.create_dataset_once(new, None, now).await?;
        Ok(if let Done::Now(id) = made { id } else { None })
    }

    /// The same, once for each key.
    pub async fn create_dataset_once(
        &self,
        new: NewDataset,
        once: Option<Once>,
        now: UnixNanos,
    ) -> Result<Done<Option<Uuid>>, Error> {
        let id = Uuid::new_v4();
        let work = Create { id, new, at: now.into() };
        let done = self.run(Keyed { once, id, at: now, work, is_done: |made| *made }).await?;
        Ok(done.map(|made| made.then_some(id)))
    }

    /// A dataset, if the caller may see it.
    pub async fn dataset(&self, viewer: Viewer, id: Uuid) -> Result<Option<Dataset>, Error> {
        let found =
            self.seen_by(viewer).lines(&format!("{DATASET}{SEEN} AND id = $2"), &binds![viewer.own(), id]).await?;
        Ok(found.first().map(read).transpose()?)
    }

    /// The datasets that the caller may see, newest first. `limit` is kept within 1 to 500.
    pub async fn datasets(&self, viewer: Viewer, cursor: Option<&str>, limit: u32) -> Result<Page<Dataset>, Error> {
        let limit = page(limit);
        let mut ask = Ask { sql: format!("{DATASET}{SEEN}"), binds: binds![viewer.own()].into() };
        if let Some(Place { at, id }) = cursor.map(Place::parse).transpose()? {
            ask.push(" AND (created_at, id) < (?, ?)", binds![at, id]);
        }
        ask.push(" ORDER BY created_at DESC, id DESC LIMIT ?", binds![limit as i64 + 1]);
        let lines = self.seen_by(viewer).lines(&ask.sql, &ask.binds).await?;
        let rows = lines.iter().map(read).collect::<Result<_, Fault>>()?;
        Ok(Page::cut(rows, limit, |row: &Dataset| Place { at: row.created_at, id: row.id }))
    }

    /// Examples `from` and on, `limit` (kept within 1 to 10 000) at most; none past the end, or where the caller may see no such dataset.
    pub async fn examples(&self, viewer: Viewer, id: Uuid, from: i64, limit: u32) -> Result<Vec<Example>, Error> {
        let limit = i64::from(limit.clamp(1, EXAMPLES_MAX));
        let sql = if self.kind() == "sqlite" { EXAMPLES_SQLITE } else { EXAMPLES_POSTGRES };
        let binds = binds![viewer.own(), id, from.max(0), limit];
        let lines = self.seen_by(viewer).lines(&sql.replace("{seen}", SEEN), &binds).await?;
        let example = |line: &Line| Ok(Example { nr: line.int(0)?, body: line.json(1)? });
        Ok(lines.iter().map(example).collect::<Result<_, Fault>>()?)
    }

    /// The same as JSON text, each with its place; `limit` is kept within 1 to 100 000. The database goes through the whole dataset for
    /// each call, so it is worth asking for as many as memory bears.
    pub async fn example_texts(
        &self,
        viewer: Viewer,
        id: Uuid,
        from: i64,
        limit: u32,
    ) -> Result<Vec<(i64, String)>, Error> {
        let limit = i64::from(limit.clamp(1, TEXTS_MAX));
        let sql = if self.kind() == "sqlite" { EXAMPLES_SQLITE } else { EXAMPLES_POSTGRES };
        let binds = binds![viewer.own(), id, from.max(0), limit].into();
        let lines = self.bulk(&sql.replace("{seen}", SEEN), binds).await?;
        let example = |mut line: Line| Ok((line.int(0)?, line.take_text(1)?));
        Ok(lines.into_iter().map(example).collect::<Result<_, Fault>>()?)
    }

    /// How many examples a dataset has; none where the caller may see no such dataset.
    pub async fn example_count(&self, viewer: Viewer, id: Uuid) -> Result<Option<i64>, Error> {
        let sql = if self.kind() == "sqlite" { COUNT_SQLITE } else { COUNT_POSTGRES };
        let found = self.seen_by(viewer).lines(&sql.replace("{seen}", SEEN), &binds![viewer.own(), id]).await?;
        Ok(found.first().map(|line| line.int(0)).transpose()?)
    }

    /// Changes a dataset. False: there is none that the caller may change.
    pub async fn update_dataset(
        &self,
        viewer: Viewer,
        id: Uuid,
        change: DatasetChange,
        now: UnixNanos,
    ) -> Result<bool, Error> {
        Ok(self.run(Update { viewer, id, change, at: now.into() }).await?)
    }

    /// Deletes a dataset that no evaluation ran on.
    pub async fn delete_dataset(&self, viewer: Viewer, id: Uuid) -> Result<DatasetDeleted, Error> {
        Ok(self.run(Delete { viewer, id }).await?)
    }
}

const EXAMPLES_SQLITE: &str = "SELECT e.key, CASE e.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE json_quote(e.value) END
     FROM public.evaluation_datasets d, json_each(d.data, CASE json_type(d.data) WHEN 'array' THEN '$' ELSE '$.examples' END) e
     WHERE {seen} AND d.id = $2 AND typeof(e.key) = 'integer' AND e.key >= $3 AND e.key < $3 + $4 ORDER BY e.key";
const EXAMPLES_POSTGRES: &str = "SELECT e.nr - 1, e.body FROM public.evaluation_datasets d,
         jsonb_array_elements(CASE WHEN jsonb_typeof(d.data) = 'array' THEN d.data
             WHEN jsonb_typeof(d.data -> 'examples') = 'array' THEN d.data -> 'examples' ELSE '[]' END) WITH ORDINALITY AS e (body, nr)
     WHERE {seen} AND d.id = $2 AND e.nr > $3 AND e.nr <= $3 + $4 ORDER BY e.nr";
const COUNT_SQLITE: &str = "SELECT coalesce(CASE json_type(data) WHEN 'array' THEN json_array_length(data)
         ELSE json_array_length(data, '$.examples') END, 0) FROM public.evaluation_datasets WHERE {seen} AND id = $2";
const COUNT_POSTGRES: &str = "SELECT CASE WHEN jsonb_typeof(data) = 'array' THEN jsonb_array_length(data)
         WHEN jsonb_typeof(data -> 'examples') = 'array' THEN jsonb_array_length(data -> 'examples') ELSE 0 END
     FROM public.evaluation_datasets WHERE {seen} AND id = $2";

/// The JSON text without NUL, which PostgreSQL keeps nowhere.
fn clean(data: &RawValue) -> String {
    match serde_json::from_str::<Value>(data.get()) {
        Ok(value) if data.get().contains("\\u0000") => crate::text::json_value(&value),
        _ => data.get().to_owned(),
    }
}

struct Create {
    id: Uuid,
    new: NewDataset,
    at: Moment,
}

impl Work for Create {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let new = &self.new;
        let sql = "SELECT 1 FROM public.profiles WHERE id = $1";
        if tx.query(sql, &binds![new.created_by]).await?.is_empty() {
            return Ok(false);
        }
        let sql = "INSERT INTO public.evaluation_datasets
                 (id, name, description, type, data, metadata, is_public, created_by, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb, $7, $8, $9, $9)";
        let (description, data) = (new.description.as_deref(), clean(&new.data));
        let kind = new.kind.as_str();
        let binds =
            binds![self.id, &new.name, description, kind, data, &new.metadata, new.is_public, new.created_by, self.at];
        tx.act_for(Some(new.created_by)).await?;
        tx.execute(sql, &binds).await?;
        Ok(true)
    }
}

struct Update {
    viewer: Viewer,
    id: Uuid,
    change: DatasetChange,
    at: Moment,
}

impl Work for Update {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let DatasetChange { name, description, data, metadata, is_public } = &self.change;
        let mut ask = Ask { sql: String::new(), binds: binds![self.viewer.own(), self.id].into() };
        ask.push("UPDATE public.evaluation_datasets SET updated_at = ?", binds![self.at]);
        if let Some(name) = name {
            ask.push(", name = ?", binds![name]);
        }
        if let Some(description) = description {
            ask.push(", description = ?", binds![description]);
        }
        if let Some(data) = data {
            ask.push(", data = ?::jsonb", binds![clean(data)]);
        }
        if let Some(metadata) = metadata {
            ask.push(", metadata = ?::jsonb", binds![metadata]);
        }
        if let Some(is_public) = is_public {
            ask.push(", is_public = ?", binds![*is_public]);
        }
        ask.sql.push_str(&format!(" WHERE id = $2 AND {OWN}"));
        tx.act_for(self.viewer.own()).await?;
        Ok(tx.execute(&ask.sql, &ask.binds).await? == 1)
    }
}

struct Delete {
    viewer: Viewer,
    id: Uuid,
}

impl Work for Delete {
    type Done = DatasetDeleted;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<DatasetDeleted, Fault> {
        let owner = self.viewer.own();
        tx.act_for(owner).await?;
        let sql = format!("SELECT 1 FROM public.evaluation_datasets WHERE id = $2 AND {OWN}");
        if tx.query(&sql, &binds![owner, self.id]).await?.is_empty() {
            return Ok(DatasetDeleted::NotFound);
        }
        let sql = "SELECT 1 FROM public.evaluation_dataset_runs WHERE dataset_id = $1 LIMIT 1";
        if !tx.query(sql, &binds![self.id]).await?.is_empty() {
            return Ok(DatasetDeleted::InUse);
        }
        // One that begins just now is a violated reference: the work is done again, and finds it.
        tx.execute("DELETE FROM public.evaluation_datasets WHERE id = $1", &binds![self.id]).await?;
        Ok(DatasetDeleted::Gone)
    }
}
