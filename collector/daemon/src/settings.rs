//! The configuration's sections as the rooms take them.
//!
//! Not here: what a key may hold, and its default (`config`); what a room does with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use emberd_archive::keeping;
use emberd_archive::rows::How;
use emberd_cache::Caches;
use emberd_cache::wire::Seal;
use emberd_consumers::archiver;
use emberd_consumers::forwarder::{self, PhoenixConfig, choice};
use emberd_evaluators_datasets::Reader;
use emberd_evaluators_datasets::apart::Apart;
use emberd_evaluators_hosts as hosts;
use emberd_evaluators_jobs as jobs;
use emberd_identity::Verifier;
use emberd_identity::bridge::Bridge;
use emberd_identity::claims::Party;
use emberd_identity::jwks::Jwks;
use emberd_model::Clock;
use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_store::retention::{Kept, Table};

use crate::commands::READ_PARQUET;
use crate::config::{self, Config};

/// The consumer that forwards to Phoenix.
pub(crate) const PHOENIX: &str = "phoenix";

/// The part of the log's budget that may wait for a good file.
const HOLD_PART: u64 = 16;
/// Memory that columns may take before they become files.
const GATHER_BYTES: usize = 24 << 20;

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
            config::Database::Sqlite(file) => {
                format!("sqlite:{}", std::path::absolute(file).unwrap_or_else(|_| file.clone()).display())
            }
            config::Database::Postgres(url) => url.reveal().to_owned(),
        };
        emberd_store::Config { url, max_connections: self.max_connections, data_dir: data_dir.into() }
    }
}

impl config::Intake {
    pub(crate) fn room(
        &self,
        redact: Option<Arc<emberd_intake::redact::Redact>>,
        kept: emberd_intake::Kept,
    ) -> anyhow::Result<emberd_intake::Config> {
        let (keys, cors_origins) = self.senders()?;
        Ok(emberd_intake::Config {
            max_request_bytes: usize::try_from(self.max_request.0)?,
            in_flight_bytes: usize::try_from(self.in_flight.0)?,
            cors_origins,
            keys,
            redact,
            kept: Some(kept),
            ..emberd_intake::Config::new(self.grpc, self.http)
        })
    }

    /// Who may send.
    pub(crate) fn senders(&self) -> anyhow::Result<(Option<emberd_intake::Keys>, emberd_intake::Origins)> {
        let origins: Vec<&str> = self.cors_origins.iter().map(|origin| origin.0.as_str()).collect();
        let keys = self.keys.as_ref().map(|keys| {
            emberd_intake::Keys::parse(keys.text.reveal())
                .with_context(|| format!("cannot use the ingest keys in {}", keys.path.display()))
        });
        Ok((keys.transpose()?, emberd_intake::Origins::parse(origins)?))
    }
}

impl config::Retention {
    /// How long what is kept in the database.
    pub(crate) fn tables(&self) -> Kept {
        let named = |name: &str| Table::ALL.iter().copied().find(|table| table.as_str() == name);
        self.tables.iter().filter_map(|(name, kept)| Some((named(name)?, *kept))).collect()
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

impl config::Choice {
    fn room(&self, reading: Reading) -> Option<choice::Config> {
        (self.at.0 < 1.0).then(|| choice::Config {
            pressed_at: self.at.0,
            pressed_after: self.after,
            errors: self.errors,
            slow: Some(self.slow).filter(|slow| !slow.is_zero()),
            prompts: self.prompts.clone(),
            share: self.share.0,
            traces_per_second: Some(self.traces_per_second).filter(|most| *most > 0),
            reading,
        })
    }
}

impl config::Archive {
    /// Where spans are archived.
    pub(crate) fn place(&self, data_dir: &Path) -> anyhow::Result<Arc<dyn keeping::Place>> {
        let config::Bucket { endpoint, region, keys, virtual_hosted, conditional } = &self.bucket;
        let settings = keeping::S3Settings {
            endpoint: endpoint.clone(),
            region: region.clone(),
            keys: keys.as_ref().map(|(id, secret)| (id.clone(), secret.reveal().to_owned())),
            allow_http: endpoint.as_ref().is_some_and(|url| url.starts_with("http://")),
            virtual_hosted: *virtual_hosted,
            conditional: *conditional,
            ..keeping::S3Settings::default()
        };
        self.place.place(&data_dir.join("archive"), settings).context("[archive] cannot be used")
    }

    /// How spans of the log of this name are archived.
    pub(crate) fn room(&self, log: String, config: &Config) -> anyhow::Result<archiver::Config> {
        let recorder = &config.recorder;
        let days = u32::try_from(self.keep.as_secs() / 86_400).unwrap_or(u32::MAX);
        Ok(archiver::Config {
            log,
            how: How { reading: recorder.reading(), prices: (*recorder.prices()?).clone(), ..How::default() },
            every: self.every,
            gather_bytes: GATHER_BYTES,
            hold_bytes: config.log.budget.0 / HOLD_PART,
            compaction: keeping::Compaction { bytes_target: self.file.0, ..keeping::Compaction::default() },
            retention: keeping::Retention {
                days: (days > 0).then_some(days),
                bytes: self.budget.map(|budget| budget.0),
            },
        })
    }
}

impl config::Identity {
    fn room(self) -> anyhow::Result<emberd_api::Identity> {
        let secret = self.secret.map(|secret| emberd_identity::Secret::new(secret.reveal())).transpose()?;
        let bridge = Party { issuer: self.bridge_issuer, audience: self.bridge_audience };
        let jwks = self.jwks_url.map(Jwks::new).transpose().context("no client for [identity] jwks_url")?;
        Ok(emberd_api::Identity {
            bridge: secret.clone().map(|secret| Bridge::new(secret, bridge.clone(), self.provider, self.company)),
            verifier: Verifier {
                secret,
                jwks: jwks.map(Arc::new),
                session: self.issuer.zip(self.audience).map(|(issuer, audience)| Party { issuer, audience }),
                bridge,
                accept_plain: self.accept_plain,
                lifetime_max: self.lifetime_max,
            },
            admin_roles: self.admin_roles,
        })
    }
}

impl config::Phoenix {
    /// The way to its own API; none where no key can be read, which is told.
    fn proxied(&self) -> Option<emberd_api::proxy::Config> {
        let read = |file: &config::SecretFile| match file.read() {
            Ok(key) => Some(key.reveal().to_owned()),
            Err(error) => {
                tracing::warn!(%error, "a key for Phoenix cannot be read: it is asked without");
                None
            }
        };
        let own = self.api_key.as_ref();
        Some(emberd_api::proxy::Config {
            url: self.url.clone(),
            public_url: self.public_url.clone().unwrap_or_else(|| self.url.clone()),
            admin_key: own.and_then(read),
            member_key: self.member_api_key.as_ref().or(own).and_then(read),
            cache: self.cache,
        })
    }
}

impl config::Flags {
    fn room(self) -> emberd_api::Flags {
        let flag = |config::Flag { enabled, rollout }| emberd_api::Flag { enabled, rollout };
        emberd_api::Flags {
            evaluations: flag(self.evaluations),
            traces: flag(self.traces),
            experiments: flag(self.experiments),
            advanced_metrics: flag(self.advanced_metrics),
        }
    }
}

impl config::Api {
    /// With who may call it; none: whoever reaches it.
    pub(crate) fn room(
        &self,
        identity: Option<config::Identity>,
        flags: config::Flags,
        phoenix: &config::Phoenix,
        caches: emberd_api::Caching,
    ) -> anyhow::Result<emberd_api::Config> {
        let tuning = self.tuning(identity, flags)?;
        let emberd_api::Tuning { flags, cors, trusted, rate, identity } = tuning;
        let callers = match identity {
            Some(identity) => emberd_api::Callers::Tokens(Box::new(identity)),
            None => emberd_api::Callers::LocalAdministrator,
        };
        let phoenix = phoenix.proxied();
        let reader = Reader::Apart(Apart::this_program(READ_PARQUET));
        let (listen, summary) = (self.listen, self.summary);
        let handed = None;
        Ok(emberd_api::Config { listen, handed, callers, rate, flags, phoenix, cors, trusted, reader, summary, caches })
    }

    /// What of it can change while it answers.
    pub(crate) fn tuning(
        &self,
        identity: Option<config::Identity>,
        flags: config::Flags,
    ) -> anyhow::Result<emberd_api::Tuning> {
        let rate = emberd_api::Rate { per_second: self.rate.into(), burst: self.burst.into() };
        let cors = self.cors.iter().map(|origin| origin.0.clone()).collect();
        let trusted =
            self.trusted_proxies.iter().filter_map(|of| emberd_api::Network::new(of.address, of.bits)).collect();
        let identity = identity.map(config::Identity::room).transpose()?;
        Ok(emberd_api::Tuning { flags: flags.room(), cors, trusted, rate, identity })
    }
}

impl config::Cache {
    /// The caches; what they put into Redis is sealed with a secret of the application's and emberd's, where there is one.
    pub(crate) fn room(
        &self,
        identity: Option<&config::Identity>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<emberd_api::Caching> {
        let redis = self
            .redis
            .as_ref()
            .map(|url| emberd_cache::Config { url: url.reveal().to_owned(), prefix: self.prefix.clone() });
        let secret = identity.and_then(|identity| identity.secret.as_ref());
        let seal = secret.map(|secret| Seal::new(secret.reveal().as_bytes()));
        let caches = Caches::new(redis, seal, clock).context("[cache] redis_url")?;
        Ok(emberd_api::Caching { caches, users: self.users as usize, answers: self.answers as usize })
    }
}

impl Config {
    /// Where spans are forwarded: Phoenix, then the further endpoints.
    pub(crate) fn targets(&self) -> anyhow::Result<Vec<forwarder::Config>> {
        let mut targets = Vec::new();
        if let Some(otlp) = &self.phoenix.otlp {
            let phoenix = PhoenixConfig { verify: self.phoenix.verify, ..PhoenixConfig::at(self.phoenix.url.as_str()) };
            targets.push(forwarder::Config {
                choice: self.phoenix.choice.room(self.recorder.reading()),
                key: self.phoenix.api_key.as_ref().map(key),
                compression: self.phoenix.compression.room(),
                ..forwarder::Config::phoenix(PHOENIX, otlp.room(), phoenix)
            });
        }
        for forward in &self.forward {
            targets.push(forwarder::Config {
                headers: headers(&forward.headers)
                    .with_context(|| format!("the headers of [[forward]] {}", forward.name))?,
                key: forward.api_key.as_ref().map(key),
                compression: forward.compression.room(),
                in_flight: forward.in_flight as usize,
                ..forwarder::Config::otlp(&forward.name, forward.url.room())
            });
        }
        Ok(targets)
    }
}

fn key(file: &config::SecretFile) -> forwarder::Key {
    let file = file.clone();
    forwarder::Key::new(move || Ok(file.read()?.reveal().to_owned()))
}

fn headers(pairs: &[(String, config::Secret)]) -> anyhow::Result<http::HeaderMap> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in pairs {
        let mut value = http::HeaderValue::from_str(value.reveal())?;
        value.set_sensitive(true);
        headers.insert(http::HeaderName::from_bytes(name.as_bytes())?, value);
    }
    Ok(headers)
}

impl config::Endpoint {
    pub(crate) fn room(&self) -> forwarder::Endpoint {
        match self {
            Self::Grpc(url) => forwarder::Endpoint::Grpc(url.to_string()),
            Self::Http(url) => forwarder::Endpoint::Http(url.to_string()),
        }
    }
}

impl config::Compression {
    fn room(self) -> forwarder::Compression {
        match self {
            Self::None => forwarder::Compression::None,
            Self::Gzip => forwarder::Compression::Gzip,
            Self::Zstd => forwarder::Compression::Zstd,
        }
    }
}

impl config::Llm {
    /// How evaluation jobs are run.
    pub(crate) fn room(&self, prices: Arc<Prices>) -> jobs::Config {
        let key = self.api_key.as_ref().map(|key| jobs::Secret(key.reveal().to_owned()));
        let endpoint = self.base_url.as_ref().map(|url| jobs::Endpoint::new(url.as_str().trim_end_matches('/'), key));
        jobs::Config {
            endpoints: endpoint.into_iter().collect(),
            judge_model: self.judge_model.clone(),
            prices,
            ..jobs::Config::default()
        }
    }
}

/// Where programs are looked for, unless a plugin's own environment says otherwise.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl config::Plugin {
    pub(crate) fn room(&self) -> (String, hosts::Config) {
        let source = match &self.source {
            config::PluginSource::Command(argv) => {
                let mut command = hosts::Command::new(argv.iter().cloned());
                command.env.insert("PATH".to_owned(), PATH.to_owned());
                command.env.extend(self.env.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())));
                hosts::Source::Command(command)
            }
            config::PluginSource::Address(url) => hosts::Source::Address(url.clone()),
            config::PluginSource::Wasm(module) => {
                hosts::Source::Wasm { module: module.clone(), limits: hosts::WasmLimits::default() }
            }
        };
        (self.name.clone(), hosts::Config::new(source))
    }
}

/// An answer of Phoenix's REST API takes no longer.
const PHOENIX_PATIENCE: Duration = Duration::from_secs(60);

impl config::Phoenix {
    /// A way to its REST API.
    pub(crate) fn client(&self) -> anyhow::Result<emberd_phoenix::Client> {
        self.client_within(PHOENIX_PATIENCE)
    }

    /// The same for one who waits for no answer longer than this.
    pub(crate) fn client_within(&self, patience: Duration) -> anyhow::Result<emberd_phoenix::Client> {
        let client = emberd_phoenix::Client::new(self.url.as_str(), patience)?;
        if let Some(file) = &self.api_key {
            client.set_key(Some(file.read().context("[phoenix] api_key_file")?.reveal()))?;
        }
        Ok(client)
    }
}
