//! A consumer's place in the log, in a small file: for consumers without a database of their own.
//!
//! Promise: [`CursorFile::store`] returns when the cursor is durable; a crash leaves the old one or the new one, never a
//! mixture. What is damaged is said, never guessed at.
//! On disk:  one line, `emberd-cursor 1 CONSUMER OFFSET CRC32C`, the check sum over all before it, as lower-case hex.
//! Not here: whether the log still holds that place ([`ReadError`](crate::ReadError) says that).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use emberd_model::Offset;

use crate::disk::{Access, Disk, File, RealDisk, read_full_at, write_all_at};
use crate::error::CursorError;

/// The file of one consumer's cursor, `DIR/CONSUMER.cursor`.
#[derive(Debug)]
pub struct CursorFile {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    path: PathBuf,
    consumer: String,
}

/// A cursor file holds one line; more than this is not one.
const BYTES_MAX: usize = 256;

impl CursorFile {
    /// The cursor file of `consumer` in `dir`, which is made if missing. The file itself appears with the first store.
    pub fn open(dir: &Path, consumer: &str) -> Result<Self, CursorError> {
        Self::open_on(Arc::new(RealDisk), dir, consumer)
    }

    /// The same on another disk.
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, consumer: &str) -> Result<Self, CursorError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if consumer.is_empty() || consumer.len() > 64 || !consumer.chars().all(plain) {
            return Err(CursorError::Name { consumer: consumer.to_owned() });
        }
        let path = dir.join(format!("{consumer}.cursor"));
        disk.create_dir(dir).map_err(|source| CursorError::Disk {
            action: "make the directory of",
            path: path.clone(),
            source,
        })?;
        Ok(Self { disk, dir: dir.to_owned(), path, consumer: consumer.to_owned() })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cursor last stored; none if there never was one.
    pub fn load(&self) -> Result<Option<Offset>, CursorError> {
        let failed = |source| CursorError::Disk { action: "read", path: self.path.clone(), source };
        let file = match self.disk.open(&self.path, Access::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let mut bytes = [0; BYTES_MAX];
        let len = read_full_at(&*file, &mut bytes, 0).map_err(failed)?;
        match std::str::from_utf8(&bytes[..len]).ok().and_then(|text| self.parse(text)) {
            Some(cursor) => Ok(Some(cursor)),
            None => Err(CursorError::Corrupt { path: self.path.clone() }),
        }
    }

    /// Stores a cursor, durably. Blocks on the disk.
    pub fn store(&self, cursor: Offset) -> Result<(), CursorError> {
        let failed = |action| move |source| CursorError::Disk { action, path: self.path.clone(), source };
        let temp = self.dir.join(format!("{}.cursor.tmp", self.consumer));
        let file = self.disk.create(&temp, Access::Write).map_err(failed("make"))?;
        write_all_at(&*file, self.line(cursor).as_bytes(), 0).map_err(failed("write"))?;
        File::sync_data(&*file).map_err(failed("sync"))?;
        self.disk.rename(&temp, &self.path).map_err(failed("rename"))?;
        self.disk.sync_dir(&self.dir).map_err(failed("sync the directory of"))
    }

    fn line(&self, cursor: Offset) -> String {
        let text = format!("emberd-cursor 1 {} {cursor} ", self.consumer);
        let crc = crc_fast::crc32_iscsi(text.as_bytes());
        format!("{text}{crc:08x}\n")
    }

    /// The cursor in `text`, if it is exactly the line that would be stored for it.
    fn parse(&self, text: &str) -> Option<Offset> {
        let cursor = Offset(text.split(' ').nth(3)?.parse().ok()?);
        (text == self.line(cursor)).then_some(cursor)
    }
}

#[cfg(test)]
mod tests;
