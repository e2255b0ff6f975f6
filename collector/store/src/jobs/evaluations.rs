//! Rows of `prompt_evaluations`: seen by all, changed by their creators.

use emberd_model::UnixNanos;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::viewer::{OWN, Viewer};
use crate::Moment;
use crate::error::Error;
use crate::fault::Fault;
use crate::library::{OfPrompts, Page, Place};
use crate::sql::{Ask, Line, binds};
use crate::store::{Store, page};
use crate::tx::{Tx, Work};

/// A row of `prompt_evaluations`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Primary key; a job's id where emberd runs it.
    pub id: Uuid,
    /// Whose.
    pub prompt_id: Uuid,
    /// Phoenix's experiment, or `local:` and a UUID.
    pub phoenix_eval_id: String,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// pending, running, completed, failed, cancelled.
    pub status: String,
    /// As the caller gave it.
    pub config: Value,
    /// What came out.
    pub results: Option<Value>,
    /// Means, intervals, latency, cost.
    pub metrics: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
    /// When its items could first be taken.
    pub started_at: Option<Moment>,
    /// When it was over.
    pub completed_at: Option<Moment>,
    /// When it was asked for.
    pub created_at: Moment,
    /// A profile.
    pub created_by: Uuid,
    /// When the row last changed.
    pub updated_at: Moment,
}

/// Which evaluations; all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvaluationFilter {
    /// Of this prompt.
    pub prompt: Option<Uuid>,
    /// Of this status.
    pub status: Option<String>,
    /// By this profile.
    pub creator: Option<Uuid>,
}

const EVALUATION: &str =
    "SELECT id, prompt_id, phoenix_eval_id, name, description, status, config, results, metrics, error,
     started_at, completed_at, created_at, created_by, updated_at FROM public.prompt_evaluations WHERE true";

fn read(line: &Line) -> Result<Evaluation, Fault> {
    Ok(Evaluation {
        id: line.id(0)?,
        prompt_id: line.id(1)?,
        phoenix_eval_id: line.text(2)?,
        name: line.text(3)?,
        description: line.maybe_text(4)?,
        status: line.text(5)?,
        config: line.json(6)?,
        results: line.maybe_json(7)?,
        metrics: line.maybe_json(8)?,
        error: line.maybe_text(9)?,
        started_at: line.maybe_moment(10)?,
        completed_at: line.maybe_moment(11)?,
        created_at: line.moment(12)?,
        created_by: line.id(13)?,
        updated_at: line.moment(14)?,
    })
}

impl Store {
    /// An evaluation.
    pub async fn evaluation(&self, id: Uuid) -> Result<Option<Evaluation>, Error> {
        let found = self.lines(&format!("{EVALUATION} AND id = $1"), &binds![id]).await?;
        Ok(found.first().map(read).transpose()?)
    }

    /// Evaluations, newest first. `limit` is kept within 1 to 500.
    pub async fn evaluations(
        &self,
        filter: &EvaluationFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Evaluation>, Error> {
        let limit = page(limit);
        let mut ask = Ask::default();
        ask.push(EVALUATION, []);
        if let Some(prompt) = filter.prompt {
            ask.push(" AND prompt_id = ?", binds![prompt]);
        }
        if let Some(status) = &filter.status {
            ask.push(" AND status = ?", binds![status]);
        }
        if let Some(creator) = filter.creator {
            ask.push(" AND created_by = ?", binds![creator]);
        }
        if let Some(Place { at, id }) = cursor.map(Place::parse).transpose()? {
            ask.push(" AND (created_at, id) < (?, ?)", binds![at, id]);
        }
        ask.push(" ORDER BY created_at DESC, id DESC LIMIT ?", binds![limit as i64 + 1]);
        let lines = self.lines(&ask.sql, &ask.binds).await?;
        let rows = lines.iter().map(read).collect::<Result<_, Fault>>()?;
        Ok(Page::cut(rows, limit, |row: &Evaluation| Place { at: row.created_at, id: row.id }))
    }

    /// The newest evaluations of each of some prompts, in a statement for a hundred prompts at a time.
    pub async fn evaluations_of(&self, asked: &OfPrompts) -> Result<Vec<Evaluation>, Error> {
        self.newest(EVALUATION, asked, read).await
    }

    /// Gives an evaluation another name, another description, or (`Some(None)`) no description. False: there is none that the caller may
    /// change.
    pub async fn update_evaluation(
        &self,
        viewer: Viewer,
        id: Uuid,
        name: Option<String>,
        description: Option<Option<String>>,
        now: UnixNanos,
    ) -> Result<bool, Error> {
        Ok(self.run(Rename { viewer, id, name, description, now }).await?)
    }

    /// Deletes an evaluation with its job, items and results. Answers that were paid for stay. False: there is none that the caller may
    /// delete.
    pub async fn delete_evaluation(&self, viewer: Viewer, id: Uuid) -> Result<bool, Error> {
        Ok(self.run(Delete { viewer, id }).await?)
    }

    /// Replaces `local:`... by the id that Phoenix gave. False: it stands otherwise by now.
    pub async fn set_phoenix_eval_id(&self, id: Uuid, from: &str, to: &str, now: UnixNanos) -> Result<bool, Error> {
        Ok(self.run(SetPhoenixId { id, from: from.to_owned(), to: to.to_owned(), now }).await?)
    }
}

struct Rename {
    viewer: Viewer,
    id: Uuid,
    name: Option<String>,
    description: Option<Option<String>>,
    now: UnixNanos,
}

impl Work for Rename {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let sql = format!(
            "UPDATE public.prompt_evaluations SET name = coalesce($3, name),
                 description = CASE WHEN $4 THEN $5 ELSE description END, updated_at = $6 WHERE id = $2 AND {OWN}"
        );
        let (name, at) = (self.name.as_deref(), Moment::from(self.now));
        let description = self.description.as_ref().and_then(|description| description.as_deref());
        let binds = binds![self.viewer.own(), self.id, name, self.description.is_some(), description, at];
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
        let sql = format!("DELETE FROM public.prompt_evaluations WHERE id = $2 AND {OWN}");
        tx.act_for(self.viewer.own()).await?;
        Ok(tx.execute(&sql, &binds![self.viewer.own(), self.id]).await? == 1)
    }
}

struct SetPhoenixId {
    id: Uuid,
    from: String,
    to: String,
    now: UnixNanos,
}

impl Work for SetPhoenixId {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let sql = "UPDATE public.prompt_evaluations SET phoenix_eval_id = $3, updated_at = $4
             WHERE id = $1 AND phoenix_eval_id = $2";
        Ok(tx.execute(sql, &binds![self.id, &self.from, &self.to, Moment::from(self.now)]).await? == 1)
    }
}
