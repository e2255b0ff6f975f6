//! Annotation configs: what Phoenix's charts know of a name, above all which direction is good.
//!
//! Promise: [`Client::put_annotation_config`] leaves one config of that name, as given, however often it is called;
//! [`Client::make_annotation_config`] leaves one that is there as it is, for somebody may have changed it.
//! Kept by: `tests/evaluation.rs`, against the real Phoenix.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::Client;
use crate::rest::{Data, Error, Size};
use crate::text;

/// Which scores are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Direction {
    /// High ones.
    Maximize,
    /// Low ones.
    Minimize,
    /// Neither.
    None,
}

/// What values there are.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Numbers, within these bounds if there are any.
    Continuous {
        /// The lowest.
        low: Option<f64>,
        /// The highest.
        high: Option<f64>,
    },
    /// Labels, with their scores. Not empty.
    Categorical(Vec<(String, Option<f64>)>),
    /// Any text.
    Freeform,
}

/// What is said of a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The annotations' name.
    pub name: String,
    /// Which scores are good.
    pub direction: Direction,
    /// What values there are.
    pub values: Values,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    name: String,
}

/// The config on the wire.
fn wire(config: &Config) -> serde_json::Value {
    let mut request = json!({ "name": config.name, "optimization_direction": config.direction });
    match &config.values {
        Values::Continuous { low, high } => {
            request["type"] = "CONTINUOUS".into();
            request["lower_bound"] = json!(low);
            request["upper_bound"] = json!(high);
        }
        Values::Categorical(values) => {
            request["type"] = "CATEGORICAL".into();
            let value = |(label, score): &(String, Option<f64>)| json!({ "label": label, "score": score });
            request["values"] = values.iter().map(value).collect();
        }
        Values::Freeform => request["type"] = "FREEFORM".into(),
    }
    text::remove_nuls(&mut request);
    request
}

impl Client {
    /// Makes the config of that name, if there is none; whether it did.
    pub async fn make_annotation_config(&self, config: &Config) -> Result<bool, Error> {
        if self.annotation_config(&config.name.replace('\0', "")).await?.is_some() {
            return Ok(false);
        }
        match self.write_config(Method::POST, &["v1", "annotation_configs"], &wire(config)).await {
            Ok(_) => Ok(true),
            // Another was quicker.
            Err(Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the config of that name, or changes it; its id.
    pub async fn put_annotation_config(&self, config: &Config) -> Result<String, Error> {
        let request = wire(config);
        let name = config.name.replace('\0', "");
        if let Some(id) = self.annotation_config(&name).await? {
            return self.write_config(Method::PUT, &["v1", "annotation_configs", &id], &request).await;
        }
        match self.write_config(Method::POST, &["v1", "annotation_configs"], &request).await {
            // Another was quicker.
            Err(Error::Conflict { said }) => match self.annotation_config(&name).await? {
                Some(id) => self.write_config(Method::PUT, &["v1", "annotation_configs", &id], &request).await,
                None => Err(Error::Conflict { said }),
            },
            done => done,
        }
    }

    /// Shows the config in a project, by its name or id.
    pub async fn attach_annotation_config(&self, project: &str, config_id: &str) -> Result<(), Error> {
        let url = self.url(&["v1", "projects", project, "annotation_configs", config_id], &[])?;
        self.call(Method::PUT, url, None, Size::Small).await.map(drop)
    }

    /// The id of the config of that name, if there is one.
    pub async fn annotation_config(&self, name: &str) -> Result<Option<String>, Error> {
        let all: Vec<Listed> = self.list(&["v1", "annotation_configs"], &[]).await?;
        Ok(all.into_iter().find(|config| config.name == name).map(|config| config.id))
    }

    async fn write_config(&self, method: Method, path: &[&str], request: &serde_json::Value) -> Result<String, Error> {
        let answer: Data<Listed> = self.ask(method, self.url(path, &[])?, Some(request), Size::Small).await?;
        Ok(answer.data.id)
    }
}
