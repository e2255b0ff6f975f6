//! Every call with which the log touches a disk, so that tests can bring a disk that loses power.
//!
//! Promise: the log's rooms call nothing of `std::fs`; what is not in these two traits, the log does not do.
//! Not here: retries and short writes ([`write_all_at`], [`read_full_at`] do those once, for all callers).

mod real;

use std::any::Any;
use std::fmt;
use std::io;
use std::path::Path;

pub use real::RealDisk;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading alone.
    Read,
    /// For reading and writing through the page cache.
    Write,
    /// For writing past the page cache. Places, lengths and addresses are multiples of [`ALIGN`]. Where the file system
    /// cannot, opening or the first write fails with [`io::ErrorKind::InvalidInput`].
    WriteDirect,
}

/// The alignment that [`Access::WriteDirect`] asks for, in bytes.
pub const ALIGN: usize = 4096;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The file's name; names that are not UTF-8 are none of the log's and are not listed.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
}

/// Keeps a lock as long as it lives.
pub type Lock = Box<dyn Any + Send + Sync>;

/// A disk with directories.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a file, empty, for writing; what was there under that name is gone.
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>>;

    /// Opens a file that is there.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>>;

    /// Gives a file another name, in one step. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The regular files in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;

    /// Makes a directory, durably, if it is not there; not its parents.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a file (made if missing) against every other holder; none if another holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
}

/// An open file.
#[allow(clippy::len_without_is_empty, reason = "a length on disk is asked for as a number")]
pub trait File: fmt::Debug + Send + Sync {
    /// Writes some of `bytes` at `at`; gives how many.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Reads some bytes at `at`; gives how many, 0 at the end of the file.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;

    /// Makes all that was written durable, and the file's length.
    fn sync_data(&self) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
}

/// Writes all of `bytes` at `at`, however often the system writes less.
///
/// A short write is taken up again at a multiple of [`ALIGN`], as direct writes need, so some bytes may be written twice.
pub fn write_all_at(file: &dyn File, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    let mut stuck = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], at + done as u64) {
            Ok(written) => {
                let whole = if done + written == bytes.len() { bytes.len() } else { (done + written) / ALIGN * ALIGN };
                stuck = if whole > done { 0 } else { stuck + 1 };
                done = done.max(whole);
            }
            Err(e) if again(&e) => stuck += 1,
            Err(e) => return Err(e),
        }
        if stuck > STUCK_MAX {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Reads until `bytes` is full or the file ends; gives how many bytes were read.
pub fn read_full_at(file: &dyn File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    let mut stuck = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(e) if again(&e) && stuck < STUCK_MAX => stuck += 1,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// How often a call may come to nothing before that counts as a failure.
const STUCK_MAX: u32 = 64;

fn again(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
