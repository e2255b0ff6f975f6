//! The configuration's sections as the rooms take them.
//!
//! Not here: what a key may hold, and its default (`config`); what a room does with it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use emberd_model::cost::Prices;
use emberd_model::facts::Reading;

use crate::config;

/// The price table that emberd brings.
const PRICES: &str = include_str!("../../../config/prices.toml");

impl config::Log {
    pub(crate) fn room(&self, data_dir: &Path) -> emberd_log::Config {
        emberd_log::Config {
            budget_bytes: self.budget.0,
            keep: self.keep,
            segment_bytes: self.segment.0,
            durability: match self.durability {
                config::Durability::Sync => emberd_log::Durability::Sync,
                config::Durability::Os => emberd_log::Durability::Os,
            },
            ..emberd_log::Config::in_dir(data_dir.join("log"))
        }
    }
}

impl config::Store {
    pub(crate) fn room(&self, data_dir: &Path) -> emberd_store::Config {
        let url = match &self.database {
            config::Database::Sqlite(file) => format!("sqlite:{}", std::path::absolute(file).unwrap_or_else(|_| file.clone()).display()),
            config::Database::Postgres(url) => url.reveal().to_owned(),
        };
        emberd_store::Config { url, max_connections: self.max_connections, data_dir: data_dir.into() }
    }
}

impl config::Intake {
    pub(crate) fn room(&self) -> anyhow::Result<emberd_intake::Config> {
        let origins: Vec<&str> = self.cors_origins.iter().map(|origin| origin.0.as_str()).collect();
        let keys = self.keys.as_ref().map(|keys| {
            emberd_intake::Keys::parse(keys.text.reveal()).with_context(|| format!("cannot use the ingest keys in {}", keys.path.display()))
        });
        Ok(emberd_intake::Config {
            max_request_bytes: usize::try_from(self.max_request.0)?,
            in_flight_bytes: usize::try_from(self.in_flight.0)?,
            cors_origins: emberd_intake::Origins::parse(origins)?,
            keys: keys.transpose()?,
            ..emberd_intake::Config::new(self.grpc, self.http)
        })
    }
}

impl config::Recorder {
    pub(crate) fn reading(&self) -> Reading {
        Reading { prompt_keys: self.prompt_keys.clone(), texts: self.texts }
    }

    pub(crate) fn prices(&self) -> anyhow::Result<Arc<Prices>> {
        let table = match &self.prices {
            Some(table) => table.clone(),
            None => toml::from_str(PRICES).context("the price table that emberd brings")?,
        };
        Ok(Arc::new(Prices::from_json(&table)?))
    }
}

impl config::Api {
    pub(crate) fn room(&self) -> emberd_api::Config {
        let cors = self.cors.iter().map(|origin| origin.0.clone()).collect();
        emberd_api::Config { listen: self.listen, callers: emberd_api::Callers::LocalAdministrator, cors }
    }
}
