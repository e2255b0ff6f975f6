//! Evaluators by name: built in, shipped, of a plugin, or a row of `evaluation_templates`.

use std::sync::Arc;
use std::time::Duration;

use emberd_evaluators_hosts::{BuildError as PluginError, Hosts, Metric};
use emberd_evaluators_kit::fields::MappingError;
use emberd_evaluators_kit::judge::{Judge, Template, shipped};
use emberd_evaluators_kit::spec::{ConfigError, Is, known};
use emberd_evaluators_kit::{BuildError, Coded, Description, Evaluator as _, Identity, Spec, build};
use emberd_store::Store;
use emberd_store::jobs::Viewer;
use serde_json::{Value, json};

use crate::plan::{By, Planned};

/// Pages of templates that are looked through for a name.
const TEMPLATE_PAGES_MAX: usize = 20;

/// An evaluator that can be asked.
#[derive(Clone, Debug)]
pub(crate) enum Live {
    Code(Arc<Coded>),
    Judge(Arc<Judge>),
    Plugin(Arc<Metric>),
}

impl Live {
    pub(crate) fn describe(&self) -> &Description {
        match self {
            Self::Code(code) => code.describe(),
            Self::Judge(judge) => judge.describe(),
            Self::Plugin(metric) => metric.describe(),
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        match self {
            Self::Code(code) => code.identity(),
            Self::Judge(judge) => judge.identity(),
            Self::Plugin(metric) => metric.identity(),
        }
    }
}

/// What is wrong with how an evaluator is named.
#[derive(Debug)]
pub(crate) struct Unbuilt {
    /// Where below the evaluator: empty, `.config`, `.config.KEY`, `.mapping.FIELD`.
    pub(crate) place: String,
    pub(crate) message: String,
    /// Whether another try may help: its plugin is not ready.
    pub(crate) is_later: bool,
}

impl Unbuilt {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), is_later: false }
    }

    fn config(spec: &Spec, error: &ConfigError) -> Self {
        // The sentence begins with the key, where there is one.
        match error.0.split_once(": ") {
            Some((key, what)) if is_word(key) => Self::new(format!(".config.{key}"), what),
            _ => {
                let named = spec.config.keys().find(|key| error.0.contains(&format!("`{key}`")));
                Self::new(named.map_or(".config".to_owned(), |key| format!(".config.{key}")), error.0.clone())
            }
        }
    }

    fn mapping(error: &MappingError) -> Self {
        let (MappingError::UnknownField { field, .. }
        | MappingError::Path { field, .. }
        | MappingError::Count { field }) = error;
        Self::new(format!(".mapping.{field}"), error.to_string())
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Finds what a name stands for, and builds it. The template's text is given where it is a row's.
pub(crate) async fn find(
    spec: &Spec,
    hosts: &Hosts,
    store: &Store,
    viewer: Viewer,
    within: Duration,
) -> Result<Result<(Live, Option<String>), Unbuilt>, emberd_store::Error> {
    if spec.name.contains('/') {
        return Ok(plugin(spec, hosts, within).await.map(|live| (live, None)));
    }
    let found = match known(&spec.name) {
        Some(Is::Code) => code(spec).map(|live| (live, None)),
        Some(Is::Judge) => judge(spec, None).map(|live| (live, None)),
        None => match template(store, viewer, &spec.name).await? {
            Some(text) => judge(spec, Some(&text)).map(|live| (live, Some(text))),
            None => Err(Unbuilt::new("", unknown(&spec.name))),
        },
    };
    Ok(found)
}

/// Builds what a plan says, and makes sure that it is still the same.
pub(crate) async fn rebuild(planned: &Planned, hosts: &Hosts, within: Duration) -> Result<Live, Unbuilt> {
    let live = match &planned.by {
        By::Code => code(&planned.spec)?,
        By::Judge { template, .. } => judge(&planned.spec, template.as_deref())?,
        By::Plugin => plugin(&planned.spec, hosts, within).await?,
    };
    let is = live.identity();
    if (&is.version, &is.digest) != (&planned.version, &planned.digest) {
        let (was, is) = (&planned.version, &is.version);
        return Err(Unbuilt::new(
            "",
            format!("the evaluator is another than when the job was made: version {was}, now {is}"),
        ));
    }
    Ok(live)
}

fn unknown(name: &str) -> String {
    let name: String = name.chars().take(100).collect();
    let known: Vec<String> = emberd_evaluators_kit::descriptions().into_iter().map(|known| known.name).collect();
    format!("unknown evaluator {name:?}; there are {}, templates, and PLUGIN/METRIC", known.join(", "))
}

fn code(spec: &Spec) -> Result<Live, Unbuilt> {
    build(spec).map(|coded| Live::Code(Arc::new(coded))).map_err(|error| unbuilt(spec, &error))
}

fn judge(spec: &Spec, text: Option<&str>) -> Result<Live, Unbuilt> {
    let judge = match text {
        None => Judge::shipped(spec),
        Some(text) => {
            let template = Template::from_json(text).map_err(|error| Unbuilt::new("", error.to_string()))?;
            Judge::new(template, &spec.config, &spec.mapping)
        }
    };
    judge.map(|judge| Live::Judge(Arc::new(judge))).map_err(|error| unbuilt(spec, &error))
}

fn unbuilt(spec: &Spec, error: &BuildError) -> Unbuilt {
    match error {
        BuildError::Config { source, .. } => Unbuilt::config(spec, source),
        BuildError::Mapping { source, .. } => Unbuilt::mapping(source),
        BuildError::Unknown { .. } | BuildError::NeedsModel { .. } => Unbuilt::new("", error.to_string()),
    }
}

async fn plugin(spec: &Spec, hosts: &Hosts, within: Duration) -> Result<Live, Unbuilt> {
    hosts.evaluator(spec, within).await.map(Live::Plugin).map_err(|error| match &error {
        PluginError::Config { source, .. } => Unbuilt::config(spec, source),
        PluginError::Mapping { source, .. } => Unbuilt::mapping(source),
        PluginError::NotReady { .. } => Unbuilt { is_later: true, ..Unbuilt::new("", error.to_string()) },
        PluginError::NoPlugin { .. } | PluginError::NoMetric { .. } => Unbuilt::new("", error.to_string()),
    })
}

/// The newest row of that name that the viewer sees, as a template's JSON: the row's name stands in where the template says none.
async fn template(store: &Store, viewer: Viewer, name: &str) -> Result<Option<String>, emberd_store::Error> {
    let mut cursor: Option<String> = None;
    for _ in 0..TEMPLATE_PAGES_MAX {
        let page = store.templates(viewer, cursor.as_deref(), 500).await?;
        if let Some(row) = page.data.into_iter().find(|row| row.name == name) {
            let mut config = row.config;
            if let Value::Object(config) = &mut config {
                config.entry("name").or_insert_with(|| json!(row.name));
                config.entry("version").or_insert_with(|| json!("1"));
            }
            return Ok(Some(config.to_string()));
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(None)
}

/// The template's own model, where it or the job's configuration of it names one.
pub(crate) fn own_model(spec: &Spec, text: Option<&str>) -> Option<String> {
    if let Some(model) = spec.config.get("model").and_then(Value::as_str) {
        return Some(model.to_owned());
    }
    match text {
        Some(text) => Template::from_json(text).ok()?.model,
        None => shipped(&spec.name)?.model.clone(),
    }
}
