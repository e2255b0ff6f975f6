//! Judges' templates: rows of `evaluation_templates`, each of which the kit can build, or it is not kept.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use emberd_evaluators_kit::judge;
use emberd_store::jobs::{NewTemplate, Template, Viewer};
use emberd_store::library::Page;
use emberd_store::once::Done;
use serde_json::Value;
use uuid::Uuid;

use crate::Shared;
use crate::ask::{Fields, Id, Parameters};
use crate::contract::{Body, Contract, Given};
use crate::refusal::Refusal;

const NAME_CHARS_MAX: usize = 255;
const DESCRIPTION_CHARS_MAX: usize = 10_000;

pub(crate) const LIST: Contract = Contract::list(
    "Judges' templates that are public or the caller's, newest first",
    &[(200, Given::Json("Templates"))],
);

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    mut asked: Parameters,
) -> Result<Json<Page<Template>>, Refusal> {
    let listing = asked.listing();
    asked.finish()?;
    let place = listing.open(&shared).await?;
    Ok(Json(place.page(shared.store.templates(viewer, place.after(), place.limit).await?)))
}

pub(crate) const CREATE: Contract = Contract::new("Makes a template, if a judge can be built of it")
    .body(Body::Json("NewTemplate"))
    .answers(&[(201, Given::Json("Template"))])
    .refuses(&[409])
    .once();

pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    asked: Parameters,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Template>), Refusal> {
    asked.finish()?;
    let name = fields.text("name", NAME_CHARS_MAX);
    let description = fields.maybe_text("description", DESCRIPTION_CHARS_MAX);
    let is_public = fields.flag("isPublic").unwrap_or(false);
    let config = fields.object("config").whole();
    let once = fields.key().map(|key| key.of(viewer.user, "create_template"));
    fields.finish()?;
    check(&name, &config)?;
    let new = NewTemplate { name, description, config, is_public };
    let id = match shared.store.create_template_once(viewer.user, new, once, shared.clock.now()).await? {
        Done::Now(Some(id)) | Done::Before(id) => id,
        Done::Now(None) => return Err(Refusal::Conflict("the caller has no profile")),
        Done::OtherBody => return Err(Refusal::OtherBody),
    };
    Ok((StatusCode::CREATED, Json(found(&shared, viewer, id).await?)))
}

pub(crate) const GET: Contract = Contract::new("A template").answers(&[(200, Given::Json("Template"))]);

pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
) -> Result<Json<Template>, Refusal> {
    asked.finish()?;
    Ok(Json(found(&shared, viewer, id).await?))
}

pub(crate) const CHANGE: Contract = Contract::new("Another name, description, visibility or contents")
    .body(Body::Json("TemplateChange"))
    .answers(&[(200, Given::Json("Template"))]);

pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
    mut fields: Fields,
) -> Result<Json<Template>, Refusal> {
    asked.finish()?;
    let before = found(&shared, viewer, id).await?;
    let name = fields.maybe_text("name", NAME_CHARS_MAX).unwrap_or(before.name);
    let description = fields.nullable_text("description", DESCRIPTION_CHARS_MAX).unwrap_or(before.description);
    let is_public = fields.flag("isPublic").unwrap_or(before.is_public);
    let config = if fields.has("config") { fields.object("config").whole() } else { before.config };
    fields.finish()?;
    check(&name, &config)?;
    let new = NewTemplate { name, description, config, is_public };
    if !shared.store.update_template(viewer, id, new).await? {
        return Err(Refusal::Forbidden);
    }
    Ok(Json(found(&shared, viewer, id).await?))
}

pub(crate) const DELETE: Contract = Contract::new("Deletes a template").answers(&[(204, Given::Nothing)]);

pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
) -> Result<StatusCode, Refusal> {
    asked.finish()?;
    match shared.store.delete_template(viewer, id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::Missing("template")),
    }
}

async fn found(shared: &Shared, viewer: Viewer, id: Uuid) -> Result<Template, Refusal> {
    shared.store.template(viewer, id).await?.ok_or(Refusal::Missing("template"))
}

/// One that no job could use is not kept.
fn check(name: &str, config: &Value) -> Result<(), Refusal> {
    let empty = serde_json::Map::new();
    judge::Template::from_row(name, config.as_object().unwrap_or(&empty))
        .map(drop)
        .map_err(|error| Refusal::invalid("config", error.to_string()))
}
