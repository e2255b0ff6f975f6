//! Which database, and where.

use std::path::{Path, PathBuf};

/// `[store]` of the configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `sqlite` (the file `emberd.db` in the data dir), `sqlite:PATH`, or `postgres://...`.
    pub url: String,
    /// Connections to hold at most; at least 2. SQLite has one more, which writes.
    pub max_connections: u32,
    /// Where `sqlite` keeps its file.
    pub data_dir: PathBuf,
}

/// Where the rows live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Sqlite(PathBuf),
    Postgres(String),
}

/// The URL names no database that emberd knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected sqlite, sqlite:PATH or postgres://..., found {scheme}")]
pub struct UnknownUrl {
    /// Its scheme; never the whole URL, which may hold a password.
    pub scheme: String,
}

impl Config {
    /// Says whether the URL can be used, without touching anything.
    pub fn check(&self) -> Result<(), UnknownUrl> {
        self.target().map(drop)
    }

    pub(crate) fn target(&self) -> Result<Target, UnknownUrl> {
        let url = self.url.trim();
        let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
        match scheme {
            "sqlite" => Ok(Target::Sqlite(sqlite_path(url, &self.data_dir))),
            "postgres" | "postgresql" => Ok(Target::Postgres(url.to_owned())),
            other => Err(UnknownUrl { scheme: other.to_owned() }),
        }
    }
}

fn sqlite_path(url: &str, data_dir: &Path) -> PathBuf {
    let rest = url.strip_prefix("sqlite").unwrap_or_default().trim_start_matches(':');
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() { data_dir.join("emberd.db") } else { data_dir.join(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, UnknownUrl> {
        Config { url: url.into(), max_connections: 2, data_dir: "/data".into() }.target()
    }

    #[test]
    fn urls_name_a_file_or_a_server() {
        assert_eq!(target("sqlite"), Ok(Target::Sqlite("/data/emberd.db".into())));
        assert_eq!(target("sqlite:"), Ok(Target::Sqlite("/data/emberd.db".into())));
        assert_eq!(target("sqlite:other.db"), Ok(Target::Sqlite("/data/other.db".into())));
        assert_eq!(target("sqlite:///var/lib/x.db"), Ok(Target::Sqlite("/var/lib/x.db".into())));
        assert_eq!(target("postgres://u:p@h/d"), Ok(Target::Postgres("postgres://u:p@h/d".into())));
        assert_eq!(target("mysql://u:secret@h/d"), Err(UnknownUrl { scheme: "mysql".into() }));
    }
}
