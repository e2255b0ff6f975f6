//! Rows of `evaluation_templates`: seen when public or own, changed by their creators.

use emberd_model::UnixNanos;
use serde::Serialize;
use serde_json::Value;
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

/// A row of `evaluation_templates`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Template {
    /// Primary key.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// What it judges.
    pub description: Option<String>,
    /// Messages, choices, model.
    pub config: Value,
    /// Whether everyone sees it.
    pub is_public: bool,
    /// A profile.
    pub created_by: Uuid,
    /// When it was made.
    pub created_at: Moment,
}

/// A template's contents, to be made or in place of the old.
#[derive(Clone, Debug)]
pub struct NewTemplate {
    /// What people call it.
    pub name: String,
    /// What it judges.
    pub description: Option<String>,
    /// Messages, choices, model.
    pub config: Value,
    /// Whether everyone sees it.
    pub is_public: bool,
}

const TEMPLATE: &str =
    "SELECT id, name, description, config, is_public, created_by, created_at FROM public.evaluation_templates WHERE ";

fn read(line: &Line) -> Result<Template, Fault> {
    Ok(Template {
        id: line.id(0)?,
        name: line.text(1)?,
        description: line.maybe_text(2)?,
        config: line.json(3)?,
        is_public: line.bool(4)?,
        created_by: line.id(5)?,
        created_at: line.moment(6)?,
    })
}

impl Store {
    /// Makes a template of the caller's; gives its id, or none where the caller has no profile.
    pub async fn create_template(
        &self,
        creator: Uuid,
        new: NewTemplate,
        now: UnixNanos,
    ) -> Result<Option<Uuid>, Error> {
        let made = self.create_template_once(creator, new, None, now).await?;
        Ok(if let Done::Now(id) = made { id } else { None })
    }

    /// The same, once for each key.
    pub async fn create_template_once(
        &self,
        creator: Uuid,
        new: NewTemplate,
        once: Option<Once>,
        now: UnixNanos,
    ) -> Result<Done<Option<Uuid>>, Error> {
        let id = Uuid::new_v4();
        let work = Create { id, creator, new, at: now.into() };
        let done = self.run(Keyed { once, id, at: now, work, is_done: |made| *made }).await?;
        Ok(done.map(|made| made.then_some(id)))
    }

    /// A template, if the caller may see it.
    pub async fn template(&self, viewer: Viewer, id: Uuid) -> Result<Option<Template>, Error> {
        let found =
            self.seen_by(viewer).lines(&format!("{TEMPLATE}{SEEN} AND id = $2"), &binds![viewer.own(), id]).await?;
        Ok(found.first().map(read).transpose()?)
    }

    /// The templates that the caller may see, newest first. `limit` is kept within 1 to 500.
    pub async fn templates(&self, viewer: Viewer, cursor: Option<&str>, limit: u32) -> Result<Page<Template>, Error> {
        let limit = page(limit);
        let mut ask = Ask { sql: format!("{TEMPLATE}{SEEN}"), binds: binds![viewer.own()].into() };
        if let Some(Place { at, id }) = cursor.map(Place::parse).transpose()? {
            ask.push(" AND (created_at, id) < (?, ?)", binds![at, id]);
        }
        ask.push(" ORDER BY created_at DESC, id DESC LIMIT ?", binds![limit as i64 + 1]);
        let lines = self.seen_by(viewer).lines(&ask.sql, &ask.binds).await?;
        let rows = lines.iter().map(read).collect::<Result<_, Fault>>()?;
        Ok(Page::cut(rows, limit, |row: &Template| Place { at: row.created_at, id: row.id }))
    }

    /// Gives a template other contents. False: there is none that the caller may change.
    pub async fn update_template(&self, viewer: Viewer, id: Uuid, new: NewTemplate) -> Result<bool, Error> {
        Ok(self.run(Update { viewer, id, new }).await?)
    }

    /// Deletes a template. False: there is none that the caller may delete.
    pub async fn delete_template(&self, viewer: Viewer, id: Uuid) -> Result<bool, Error> {
        Ok(self.run(Delete { viewer, id }).await?)
    }
}

struct Create {
    id: Uuid,
    creator: Uuid,
    new: NewTemplate,
    at: Moment,
}

impl Work for Create {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        if tx.query("SELECT 1 FROM public.profiles WHERE id = $1", &binds![self.creator]).await?.is_empty() {
            return Ok(false);
        }
        let NewTemplate { name, description, config, is_public } = &self.new;
        let sql =
            "INSERT INTO public.evaluation_templates (id, name, description, config, is_public, created_by, created_at)
             VALUES ($1, $2, $3, $4::jsonb, $5, $6, $7)";
        let binds = binds![self.id, name, description.as_deref(), config, *is_public, self.creator, self.at];
        tx.act_for(Some(self.creator)).await?;
        tx.execute(sql, &binds).await?;
        Ok(true)
    }
}

struct Update {
    viewer: Viewer,
    id: Uuid,
    new: NewTemplate,
}

impl Work for Update {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let NewTemplate { name, description, config, is_public } = &self.new;
        let sql = format!(
            "UPDATE public.evaluation_templates SET name = $3, description = $4, config = $5::jsonb, is_public = $6
             WHERE id = $2 AND {OWN}"
        );
        let binds = binds![self.viewer.own(), self.id, name, description.as_deref(), config, *is_public];
        tx.act_for(self.viewer.own()).await?;
        Ok(tx.execute(&sql, &binds).await? == 1)
    }
}

struct Delete {
    viewer: Viewer,
    id: Uuid,
}

impl Work for Delete {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let sql = format!("DELETE FROM public.evaluation_templates WHERE id = $2 AND {OWN}");
        tx.act_for(self.viewer.own()).await?;
        Ok(tx.execute(&sql, &binds![self.viewer.own(), self.id]).await? == 1)
    }
}
