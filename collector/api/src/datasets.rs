//! Datasets: made of JSON, of uploaded files, of traces; read, exported, changed, deleted.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use emberd_evaluators_datasets::{self as datasets, Example, Format, Import, Type};
use emberd_store::jobs::{Dataset, DatasetChange, DatasetDeleted, DatasetType, NewDataset, Viewer};
use emberd_store::library::{Page, TraceFilter};
use emberd_store::once::{Done, Once};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Shared;
use crate::ask::{Fields, Id, Key, Parameters, Sent};
use crate::contract::{Body, Contract, Form, Given, Parameter};
use crate::refusal::{Detail, Refusal};

const NAME_CHARS_MAX: usize = 255;
const DESCRIPTION_CHARS_MAX: usize = 10_000;
/// The formats of files, as their content-types.
const FILES: [&str; 4] = ["application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.parquet"];
/// What is told of what is wrong with a dataset's rows.
const FAULTS_MAX: usize = 100;
/// Examples in an answer's page.
const STRETCH: u32 = 1_000;
/// Examples of a dataset that is exported whole.
const EXPORT_MAX: i64 = 1_000_000;

/// A row, and how many examples it has.
#[derive(Serialize)]
pub(crate) struct Told {
    #[serde(flatten)]
    row: Dataset,
    examples: i64,
}

pub(crate) const LIST: Contract =
    Contract::list("Datasets that are public or the caller's, newest first", &[(200, Given::Json("Datasets"))]);

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    mut asked: Parameters,
) -> Result<Json<Page<Told>>, Refusal> {
    let listing = asked.listing();
    asked.finish()?;
    let place = listing.open(&shared).await?;
    let Page { data, next_cursor } = place.page(shared.store.datasets(viewer, place.after(), place.limit).await?);
    let mut told = Vec::with_capacity(data.len());
    for row in data {
        told.push(counted(&shared, viewer, row).await?);
    }
    Ok(Json(Page { data: told, next_cursor }))
}

pub(crate) const CREATE: Contract = Contract::new("Makes a dataset of its examples, up to 64 MiB")
    .body(Body::Json("NewDataset"))
    .answers(&[(201, Given::Json("Dataset"))])
    .refuses(&[409])
    .once();

pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    asked: Parameters,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Told>), Refusal> {
    asked.finish()?;
    let name = fields.text("name", NAME_CHARS_MAX);
    let description = fields.maybe_text("description", DESCRIPTION_CHARS_MAX);
    let kind = fields.word("type", &types());
    let is_public = fields.flag("isPublic").unwrap_or(false);
    let rows = fields.array("data");
    let once = fields.key().map(|key| key.of(viewer.user, "create_dataset"));
    fields.finish()?;
    let kind = kind.ok_or_else(|| Refusal::invalid("type", "is missing"))?;
    let examples = datasets::validate(kind, &rows, FAULTS_MAX).map_err(faults)?;
    make(&shared, viewer, New { name, description, kind, is_public, examples, once }).await
}

pub(crate) const UPLOAD: Contract =
    Contract::new("Makes a dataset of a file, up to 64 MiB, whose format its content-type names")
        .query(&[
            Parameter::new("name", Form::Text).required(),
            Parameter::new("type", Form::Word(&["qa_pairs", "completions", "classifications", "custom"])),
            Parameter::new("isPublic", Form::Word(&["true", "false"])),
        ])
        .body(Body::File(&FILES))
        .answers(&[(201, Given::Json("Dataset"))])
        .refuses(&[409])
        .once();

/// A file in the body: its format is its content-type.
pub(crate) async fn upload(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    mut asked: Parameters,
    uri: Uri,
    headers: HeaderMap,
    Sent(body): Sent,
) -> Result<(StatusCode, Json<Told>), Refusal> {
    let name = asked.text("name").filter(|name| name.chars().count() <= NAME_CHARS_MAX);
    let kind = asked.word("type", &types()).unwrap_or(Type::Custom);
    let is_public = asked.word("isPublic", &[("true", true), ("false", false)]).unwrap_or(false);
    asked.finish()?;
    let name = name.ok_or_else(|| Refusal::invalid("name", "expected 1 to 255 characters"))?;
    let format = format_of(&headers, header::CONTENT_TYPE.as_str()).ok_or(Refusal::Format)?;
    let query = uri.query().unwrap_or_default();
    let key = Key::read(&headers, &[query.as_bytes(), media_type(format).as_bytes(), &body]);
    let once = key.map_err(|wrong| Refusal::Invalid(vec![wrong]))?.map(|key| key.of(viewer.user, "upload_dataset"));
    let import = Import::new(kind, format);
    let Ok(place) = shared.reading.clone().acquire_owned().await else {
        return Err(Refusal::Unavailable("files are not read any more"));
    };
    let reader = shared.reader.clone();
    // Parsing may take seconds: not among those who wait for answers. It goes on when the caller is gone, and so keeps its place.
    let read = tokio::task::spawn_blocking(move || {
        let read = reader.import(body, &import);
        drop(place);
        read
    });
    let examples = match read.await {
        Ok(Ok(examples)) => examples,
        Ok(Err(datasets::Error::Faults(wrong))) => return Err(faults(wrong)),
        Ok(Err(datasets::Error::Io(error))) => {
            tracing::error!(%error, "cannot read a dataset's file");
            return Err(Refusal::Broken("the file cannot be read"));
        }
        Ok(Err(error)) => return Err(Refusal::invalid("", error.to_string())),
        Err(_) => return Err(Refusal::invalid("", "the file cannot be read")),
    };
    make(&shared, viewer, New { name, description: None, kind, is_public, examples, once }).await
}

pub(crate) const FROM_TRACES: Contract = Contract::new("Makes a dataset of a prompt's latest traces")
    .body(Body::Json("DatasetOfTraces"))
    .answers(&[(201, Given::Json("Dataset"))])
    .refuses(&[409])
    .once();

/// Of a prompt's latest traces: `{name, description?, isPublic?, traces: {promptId, limit?}}`.
pub(crate) async fn from_traces(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    asked: Parameters,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Told>), Refusal> {
    asked.finish()?;
    let name = fields.text("name", NAME_CHARS_MAX);
    let description = fields.maybe_text("description", DESCRIPTION_CHARS_MAX);
    let is_public = fields.flag("isPublic").unwrap_or(false);
    let mut traces = fields.object("traces");
    let prompt = traces.id("promptId");
    let limit = traces.number("limit", 1, 10_000).unwrap_or(100);
    fields.join(traces);
    let once = fields.key().map(|key| key.of(viewer.user, "dataset_from_traces"));
    fields.finish()?;
    let filter = TraceFilter { prompt_id: prompt, ..TraceFilter::default() };
    let mut examples: Vec<Example> = Vec::new();
    let mut cursor = None;
    while (examples.len() as i64) < limit {
        let page = shared.store.traces(&filter, cursor.as_deref(), 500).await?;
        for row in &page.data {
            let row = serde_json::to_value(row).unwrap_or_default();
            // A trace without input is no example.
            if let Some(example) = row.as_object().and_then(|row| datasets::traces::example_of(row).ok())
                && (examples.len() as i64) < limit
            {
                examples.push(example);
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    make(&shared, viewer, New { name, description, kind: Type::Custom, is_public, examples, once }).await
}

struct New {
    name: String,
    description: Option<String>,
    kind: Type,
    is_public: bool,
    examples: Vec<Example>,
    once: Option<Once>,
}

async fn make(shared: &Shared, viewer: Viewer, new: New) -> Result<(StatusCode, Json<Told>), Refusal> {
    if new.examples.is_empty() {
        return Err(Refusal::invalid("data", "there are no examples"));
    }
    let row = NewDataset {
        name: new.name,
        description: new.description,
        kind: stored(new.kind),
        data: rows(new.kind, &new.examples)?,
        metadata: json!({}),
        is_public: new.is_public,
        created_by: viewer.user,
    };
    let id = match shared.store.create_dataset_once(row, new.once, shared.clock.now()).await? {
        Done::Now(Some(id)) | Done::Before(id) => id,
        Done::Now(None) => return Err(Refusal::Conflict("the caller has no profile")),
        Done::OtherBody => return Err(Refusal::OtherBody),
    };
    Ok((StatusCode::CREATED, Json(told(shared, viewer, id).await?)))
}

/// The rows as the table has them: each with its id, so that an example stays the same one when others come and go.
fn rows(kind: Type, examples: &[Example]) -> Result<Box<RawValue>, Refusal> {
    let rows: Vec<_> = examples.iter().map(|example| kind.row(example)).collect();
    serde_json::value::to_raw_value(&rows).map_err(|_| Refusal::Broken("the examples cannot be written"))
}

fn types() -> [(&'static str, Type); 4] {
    Type::ALL.map(|kind| (kind.name(), kind))
}

/// The store's word for a type and the datasets' are one.
fn stored(kind: Type) -> DatasetType {
    DatasetType::parse(kind.name()).unwrap_or(DatasetType::Custom)
}

fn kind_of(row: &Dataset) -> Type {
    Type::ALL.into_iter().find(|kind| kind.name() == row.kind.as_str()).unwrap_or(Type::Custom)
}

async fn told(shared: &Shared, viewer: Viewer, id: Uuid) -> Result<Told, Refusal> {
    let row = shared.store.dataset(viewer, id).await?.ok_or(Refusal::Missing("dataset"))?;
    counted(shared, viewer, row).await
}

async fn counted(shared: &Shared, viewer: Viewer, row: Dataset) -> Result<Told, Refusal> {
    let examples = shared.store.example_count(viewer, row.id).await?.unwrap_or(0);
    Ok(Told { row, examples })
}

pub(crate) const GET: Contract =
    Contract::new("A dataset, without its examples").answers(&[(200, Given::Json("Dataset"))]);

pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
) -> Result<Json<Told>, Refusal> {
    asked.finish()?;
    Ok(Json(told(&shared, viewer, id).await?))
}

pub(crate) const EXAMPLES: Contract =
    Contract::list("A dataset's examples, in their order", &[(200, Given::Json("Examples"))]);

/// Its examples as they stand there, by pages.
pub(crate) async fn examples(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    mut asked: Parameters,
) -> Result<Json<Page<Value>>, Refusal> {
    let listing = asked.listing();
    asked.finish()?;
    let place = listing.open(&shared).await?;
    let (limit, from) = (place.limit, place.after().and_then(|after| after.parse().ok()).unwrap_or(0));
    shared.store.dataset(viewer, id).await?.ok_or(Refusal::Missing("dataset"))?;
    let found = shared.store.examples(viewer, id, from, limit).await?;
    let next_cursor = (found.len() as u32 == limit).then(|| (from + i64::from(limit)).to_string());
    Ok(Json(place.page(Page { data: found.into_iter().map(|example| example.body).collect(), next_cursor })))
}

pub(crate) const EXPORT: Contract =
    Contract::new("A whole dataset, in the format that `accept` names").answers(&[(200, Given::File(&FILES))]);

/// All of it, in the format that `accept` names.
pub(crate) async fn export(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    asked.finish()?;
    let format = format_of(&headers, header::ACCEPT.as_str()).unwrap_or(Format::Json);
    let row = shared.store.dataset(viewer, id).await?.ok_or(Refusal::Missing("dataset"))?;
    let kind = kind_of(&row);
    let mut rows = Vec::new();
    while (rows.len() as i64) < EXPORT_MAX {
        let stretch = shared.store.examples(viewer, id, rows.len() as i64, STRETCH).await?;
        if stretch.is_empty() {
            break;
        }
        rows.extend(stretch.into_iter().map(|example| example.body));
    }
    let examples = datasets::validate(kind, &rows, FAULTS_MAX).map_err(faults)?;
    let mut out = Vec::new();
    datasets::export(kind, format, &examples, &mut out)
        .map_err(|_| Refusal::Broken("the dataset cannot be written"))?;
    Ok(([(header::CONTENT_TYPE, media_type(format))], out).into_response())
}

pub(crate) const CHANGE: Contract = Contract::new("Another name, description, visibility, or other examples")
    .body(Body::Json("DatasetChange"))
    .answers(&[(200, Given::Json("Dataset"))]);

pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
    mut fields: Fields,
) -> Result<Json<Told>, Refusal> {
    asked.finish()?;
    let before = shared.store.dataset(viewer, id).await?.ok_or(Refusal::Missing("dataset"))?;
    let name = fields.maybe_text("name", NAME_CHARS_MAX);
    let description = fields.maybe_text("description", DESCRIPTION_CHARS_MAX);
    let is_public = fields.flag("isPublic");
    let data = fields.has("data").then(|| fields.array("data"));
    fields.finish()?;
    let kind = kind_of(&before);
    let data = match data {
        Some(new) => Some(rows(kind, &datasets::validate(kind, &new, FAULTS_MAX).map_err(faults)?)?),
        None => None,
    };
    let change = DatasetChange { name, description, data, metadata: None, is_public };
    if !shared.store.update_dataset(viewer, id, change, shared.clock.now()).await? {
        return Err(Refusal::Forbidden);
    }
    Ok(Json(told(&shared, viewer, id).await?))
}

pub(crate) const DELETE: Contract =
    Contract::new("Deletes a dataset that no evaluation ran on").answers(&[(204, Given::Nothing)]).refuses(&[409]);

pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
) -> Result<StatusCode, Refusal> {
    asked.finish()?;
    match shared.store.delete_dataset(viewer, id).await? {
        DatasetDeleted::Gone => Ok(StatusCode::NO_CONTENT),
        DatasetDeleted::InUse => Err(Refusal::Conflict("an evaluation ran on it: delete that first")),
        DatasetDeleted::NotFound => Err(Refusal::Missing("dataset")),
    }
}

fn media_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        Format::Jsonl => "application/x-ndjson",
        Format::Csv => "text/csv",
        Format::Parquet => "application/vnd.apache.parquet",
    }
}

fn format_of(headers: &HeaderMap, name: &str) -> Option<Format> {
    let value = headers.get(name)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    Format::ALL.into_iter().find(|format| media_type(*format) == essence)
}

/// Rows are counted from 0 in a path, as in the JSON that was sent; a file's line is told beside it.
fn faults(wrong: datasets::Faults) -> Refusal {
    let detail = |fault: datasets::Fault| {
        let row = format!("data[{}]", fault.row.saturating_sub(1));
        let path = fault.field.map_or(row.clone(), |field| format!("{row}.{field}"));
        let message = fault.line.map_or(fault.what.clone(), |line| format!("{} (line {line})", fault.what));
        Detail { path, message }
    };
    let mut details: Vec<Detail> = wrong.listed.into_iter().map(detail).collect();
    if wrong.more > 0 {
        details.push(Detail { path: "data".into(), message: format!("and {} more", wrong.more) });
    }
    Refusal::Invalid(details)
}
