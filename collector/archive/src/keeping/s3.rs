//! A bucket of an S3-compatible server as a place.
//!
//! Promise: each call ends within the settings' bound, with its answer or with an error that says what to do. A call that is not
//! answered is tried again within that bound; so an entry's own putting may be answered by [`PlaceError::Exists`].
//! Not here: environment variables, files of keys (the configuration hands everything in); the bucket itself, which must exist.
//! Kept by:  `tests::s3`, against a real server.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, ObjectStore as _, PutMode, PutOptions, PutPayload, RetryConfig,
};

use super::place::{Listed, Place, PlaceError};

/// How a bucket is reached.
#[derive(Clone)]
pub struct S3Settings {
    /// The server's URL; none for Amazon's own.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The access key's id and secret; none asks the machine's own role, on Amazon's machines.
    pub keys: Option<(String, String)>,
    /// The session's token, with temporary keys.
    pub session_token: Option<String>,
    /// Whether an endpoint may be asked without TLS.
    pub allow_http: bool,
    /// Whether the bucket's name stands in the host's name, and the endpoint has it.
    pub virtual_hosted: bool,
    /// Whether the server knows `If-None-Match: *`. If not, two writers of one log are found out later, or not at all.
    pub conditional: bool,
    /// How long one request may take, its body included.
    pub request_timeout: Duration,
    /// How long a call may take, with all its repetitions.
    pub call_timeout: Duration,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".to_owned(),
            keys: None,
            session_token: None,
            allow_http: false,
            virtual_hosted: false,
            conditional: true,
            request_timeout: Duration::from_secs(60),
            call_timeout: Duration::from_secs(180),
        }
    }
}

impl std::fmt::Debug for S3Settings {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Settings")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("key_id", &self.keys.as_ref().map(|(id, _)| id))
            .finish_non_exhaustive()
    }
}

/// Objects of a bucket, under a prefix.
#[derive(Debug)]
pub struct S3 {
    store: AmazonS3,
    prefix: String,
    is_conditional: bool,
    call_timeout: Duration,
}

impl S3 {
    /// The place in `bucket` under `prefix`. Connects to nothing yet. A default crypto provider for TLS must have been installed.
    pub fn new(bucket: &str, prefix: &str, settings: S3Settings) -> Result<Self, PlaceError> {
        let client = ClientOptions::new()
            .with_allow_http(settings.allow_http)
            .with_connect_timeout(Duration::from_secs(5).min(settings.request_timeout))
            .with_timeout(settings.request_timeout);
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(5),
                base: 2.0,
            },
            max_retries: 8,
            retry_timeout: settings.call_timeout,
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(settings.region)
            .with_virtual_hosted_style_request(settings.virtual_hosted)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some((id, secret)) = settings.keys {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        if let Some(token) = settings.session_token {
            builder = builder.with_token(token);
        }
        let store = builder.build().map_err(|error| failed("reach", bucket, error))?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { store, prefix, is_conditional: settings.conditional, call_timeout: settings.call_timeout })
    }

    fn path(&self, name: &str) -> Result<Path, PlaceError> {
        let whole = format!("{}{name}", self.prefix);
        Path::parse(whole).map_err(|error| failed("name", name, error.into()))
    }

    /// Bounds a call.
    async fn bounded<T>(
        &self,
        action: &'static str,
        name: &str,
        call: impl Future<Output = Result<T, PlaceError>>,
    ) -> Result<T, PlaceError> {
        let late = |late: tokio::time::error::Elapsed| PlaceError::Failed {
            action,
            name: name.to_owned(),
            advice: "the server did not answer in time: is it up, and is the way to it wide enough?",
            source: late.into(),
        };
        tokio::time::timeout(self.call_timeout, call).await.map_err(late)?
    }

    async fn put_with(&self, name: &str, bytes: Bytes, mode: PutMode) -> Result<(), PlaceError> {
        let path = self.path(name)?;
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = self.store.put_opts(&path, PutPayload::from_bytes(bytes), options);
        put.await.map(drop).map_err(|error| put_failed(name, error))
    }

    async fn fetch(&self, name: &str, options: GetOptions, bytes_max: u64) -> Result<Bytes, PlaceError> {
        let path = self.path(name)?;
        let found = self.store.get_opts(&path, options).await.map_err(|error| failed("read", name, error))?;
        if found.range.end - found.range.start > bytes_max {
            return Err(PlaceError::Long { name: name.to_owned(), bytes_max });
        }
        found.bytes().await.map_err(|error| failed("read", name, error))
    }

    async fn list_all(&self, prefix: &str) -> Result<Vec<Listed>, PlaceError> {
        let below = self.path(prefix.strip_suffix('/').unwrap_or(prefix))?;
        let objects = self.store.list(Some(&below)).map_err(|error| failed("list", prefix, error));
        let listed = objects.try_filter_map(|object| async move {
            let name = object.location.as_ref().strip_prefix(&self.prefix).map(str::to_owned);
            Ok(name.map(|name| Listed { name, bytes: object.size }))
        });
        let mut listed: Vec<Listed> = listed.try_collect().await?;
        listed.sort();
        Ok(listed)
    }

    async fn delete_all(&self, names: &[String]) -> Result<(), PlaceError> {
        let paths = names.iter().map(|name| self.path(name)).collect::<Result<Vec<Path>, PlaceError>>()?;
        let first = names.first().map_or("", String::as_str);
        let mut gone = self.store.delete_stream(futures_util::stream::iter(paths.into_iter().map(Ok)).boxed());
        while let Some(one) = gone.next().await {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed("remove", first, error)),
            }
        }
        Ok(())
    }
}

impl Place for S3 {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), PlaceError>> {
        self.bounded("write", name, self.put_with(name, bytes, PutMode::Overwrite)).boxed()
    }

    fn put_new<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), PlaceError>> {
        let put = async move {
            if self.is_conditional {
                return self.put_with(name, bytes, PutMode::Create).await;
            }
            match self.fetch(name, GetOptions::default().with_head(true), u64::MAX).await {
                Err(PlaceError::Missing { .. }) => self.put_with(name, bytes, PutMode::Overwrite).await,
                Ok(_) => Err(PlaceError::Exists { name: name.to_owned() }),
                Err(error) => Err(error),
            }
        };
        self.bounded("write", name, put).boxed()
    }

    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> BoxFuture<'a, Result<Bytes, PlaceError>> {
        self.bounded("read", name, self.fetch(name, GetOptions::default(), bytes_max)).boxed()
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, PlaceError>> {
        let bytes_max = range.end.saturating_sub(range.start);
        self.bounded("read", name, self.fetch(name, GetOptions::default().with_range(Some(range)), bytes_max)).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Listed>, PlaceError>> {
        self.bounded("list", prefix, self.list_all(prefix)).boxed()
    }

    fn delete<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<(), PlaceError>> {
        let first = names.first().map_or("", String::as_str);
        self.bounded("remove", first, self.delete_all(names)).boxed()
    }
}

/// Of a put: where nothing is found, that is the bucket.
fn put_failed(name: &str, error: object_store::Error) -> PlaceError {
    use object_store::Error as S3Error;
    match error {
        S3Error::AlreadyExists { .. } | S3Error::Precondition { .. } => PlaceError::Exists { name: name.to_owned() },
        S3Error::NotFound { .. } => PlaceError::Failed {
            action: "write",
            name: name.to_owned(),
            advice: "there is no such bucket: make it, or correct the archive's URL",
            source: error.into(),
        },
        error => failed("write", name, error),
    }
}

fn failed(action: &'static str, name: &str, error: object_store::Error) -> PlaceError {
    use object_store::Error as S3Error;
    let (name, is_denied, advice) = match &error {
        S3Error::NotFound { .. } => return PlaceError::Missing { name: name.to_owned() },
        S3Error::PermissionDenied { .. } => (
            name.to_owned(),
            true,
            "the keys need s3:GetObject, s3:PutObject, s3:DeleteObject on the prefix, and s3:ListBucket on the bucket",
        ),
        S3Error::Unauthenticated { .. } => (name.to_owned(), true, "the server does not know these keys"),
        S3Error::NotImplemented { .. } | S3Error::NotSupported { .. } => {
            (name.to_owned(), false, "the server cannot do this: set what it lacks in [archive]")
        }
        _ => (name.to_owned(), false, "look at the endpoint, the region and the server's log; it will be tried again"),
    };
    match is_denied {
        true => PlaceError::Denied { action, name, advice, source: error.into() },
        false => PlaceError::Failed { action, name, advice, source: error.into() },
    }
}
