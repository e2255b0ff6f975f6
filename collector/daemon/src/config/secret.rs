//! Secrets, and the files that hold them.
//!
//! Promise: a secret comes from a file that only its owner and group can read, or from the environment; it is one line,
//! never empty, and never shows up in a log, an error or a status.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Larger files are not secrets; a key file with thousands of keys still fits.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// A secret without its trailing newline; the error says why it cannot be one, and does not show it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        match text.trim_end_matches(['\n', '\r']) {
            "" => Err("the secret is empty".into()),
            one if one.contains(|c: char| c.is_control()) => Err("the secret must be one line of text".into()),
            one if one.trim() != one => Err("the secret begins or ends with a space".into()),
            one => Ok(Self(one.to_owned())),
        }
    }

    /// The text of a file of several secrets.
    pub(super) fn several(text: String) -> Result<Self, String> {
        if text.trim().is_empty() { Err("the file is empty".into()) } else { Ok(Self(text)) }
    }

    /// The secret itself. Whoever asks for it sends it where it belongs and nowhere else.
    #[must_use]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A file that holds a secret, good when the configuration was read; it is read again whenever the secret is needed, so that a
/// new one takes effect without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretFile(PathBuf);

impl SecretFile {
    /// The file, once it was seen to hold a secret.
    pub(super) fn at(path: PathBuf) -> Result<Self, String> {
        let file = Self(path);
        file.secret()?;
        Ok(file)
    }

    /// What it holds now.
    pub(crate) fn read(&self) -> std::io::Result<Secret> {
        self.secret().map_err(std::io::Error::other)
    }

    pub(super) fn secret(&self) -> Result<Secret, String> {
        Secret::new(&read_file(&self.0)?).map_err(|message| format!("{}: {message}", self.0.display()))
    }
}

/// Reads a file that only its owner and group may read.
pub(super) fn read_file(path: &Path) -> Result<String, String> {
    let name = path.display();
    let refused = |error: std::io::Error| format!("cannot read {name}: {error}");
    if !path.metadata().map_err(refused)?.is_file() {
        return Err(format!("{name} is not a file"));
    }
    let file = File::open(path).map_err(refused)?;
    // Asked of the open file, so that it cannot be exchanged between the look and the reading.
    let mode = file.metadata().map_err(refused)?.permissions().mode();
    if mode & 0o006 != 0 {
        return Err(format!("{name} can be read by others (mode {:03o}): chmod 600 {name}", mode & 0o777));
    }
    read_bounded(file, FILE_BYTES_MAX).map_err(|error| format!("cannot read {name}: {error}"))
}

/// Reads a text of at most so many bytes.
pub(super) fn read_bounded(file: File, bytes_max: u64) -> Result<String, String> {
    String::from_utf8(read_bytes(file, bytes_max)?).map_err(|_| "not UTF-8".into())
}

/// Reads at most so many bytes; more are a fault.
pub(super) fn read_bytes(file: File, bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max { Err(format!("more than {bytes_max} bytes")) } else { Ok(bytes) }
}

/// Whether others than its owner and group can read the file.
pub(super) fn is_shown(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}
