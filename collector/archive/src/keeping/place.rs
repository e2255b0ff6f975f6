//! What the archive asks of a place that keeps files, and what can go wrong there.
//!
//! Promise: a file appears whole or not at all, and is durable once its call has answered. A call whose answer was lost may have
//! taken effect, or may take effect later.
//! Not here: what the names mean (`name.rs`), what to do after a failure (`archive.rs`).

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{Directory, S3, S3Settings};

/// Keeps files under names of plain parts between `/`. Object-safe, so that a directory, a bucket and a test are one to the rest.
pub trait Place: Debug + Send + Sync + 'static {
    /// Puts a whole file, over another one of that name if need be.
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), PlaceError>>;

    /// Puts a whole file if there is none of that name, else [`PlaceError::Exists`]: of two that try, one succeeds.
    ///
    /// [`PlaceError::Exists`] may also be the answer to the very call that made it, where the way there tries again by itself.
    fn put_new<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), PlaceError>>;

    /// A whole file of at most `bytes_max`; [`PlaceError::Missing`] if there is none, [`PlaceError::Long`] if it is longer.
    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> BoxFuture<'a, Result<Bytes, PlaceError>>;

    /// Part of a file; shorter where the file ends before.
    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, PlaceError>>;

    /// All files whose names begin with `prefix`, which is empty or ends with `/`, in the order of their names; files that a
    /// crash left half-written among them.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Listed>, PlaceError>>;

    /// Removes files, durably; what is not there is removed already.
    fn delete<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<(), PlaceError>>;
}

/// A file as a place lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its whole name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// Why a place did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is no such file.
    #[error("{name} is not there")]
    Missing {
        /// The file.
        name: String,
    },
    /// There is such a file already.
    #[error("{name} is there already")]
    Exists {
        /// The file.
        name: String,
    },
    /// A file is longer than anything that belongs there.
    #[error("{name} is longer than {bytes_max} bytes: it is none of the archive's")]
    Long {
        /// The file.
        name: String,
        /// How long it may be.
        bytes_max: u64,
    },
    /// The place does not let emberd do this.
    #[error("not allowed to {action} {name}: {advice}")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// On what.
        name: String,
        /// What to do about it.
        advice: &'static str,
        /// What the place said.
        #[source]
        source: BoxError,
    },
    /// Anything else: the place is full, cannot be reached, is broken. Trying again may help.
    #[error("cannot {action} {name}: {advice}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// On what.
        name: String,
        /// What to do about it.
        advice: &'static str,
        /// What the place said.
        #[source]
        source: BoxError,
    },
}

/// An error of another room.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Where an archive is, by its URL in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Url {
    /// `file`: in the data directory.
    Directory,
    /// `s3://BUCKET/PREFIX`: in a bucket, under a prefix that may be empty.
    Bucket {
        /// The bucket's name.
        bucket: String,
        /// What all names begin with; no `/` at either end.
        prefix: String,
    },
}

/// Why a URL is none of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither of the two forms.
    #[error("an archive is at \"file\" (in the data directory) or at s3://BUCKET/PREFIX")]
    Form,
    /// A bucket that cannot exist.
    #[error("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")]
    Bucket,
    /// A prefix that would not stay the same on its way.
    #[error(
        "a prefix has letters, digits and the marks - _ . = in parts between single slashes, none of them \".\" or \"..\""
    )]
    Prefix,
}

impl std::str::FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text == "file" {
            return Ok(Self::Directory);
        }
        let (bucket, prefix) = match text.strip_prefix("s3://").ok_or(UrlError::Form)?.split_once('/') {
            Some((bucket, prefix)) => (bucket, prefix.strip_suffix('/').unwrap_or(prefix)),
            None => (&text["s3://".len()..], ""),
        };
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-');
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(plain) {
            return Err(UrlError::Bucket);
        }
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'=');
        let part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
        if !prefix.is_empty() && (prefix.len() > 512 || !prefix.split('/').all(part)) {
            return Err(UrlError::Prefix);
        }
        Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl Url {
    /// The place: a directory at `directory`, or the bucket, reached by `settings`.
    ///
    /// For a bucket, a default crypto provider for TLS must have been installed.
    pub fn place(&self, directory: &std::path::Path, settings: S3Settings) -> Result<Arc<dyn Place>, PlaceError> {
        Ok(match self {
            Self::Directory => Arc::new(Directory::new(directory)),
            Self::Bucket { bucket, prefix } => Arc::new(S3::new(bucket, prefix, settings)?),
        })
    }
}
