//! A disk in memory that loses power, fills up, fails and flips bits when told to.
//!
//! Promise: it forgets what a real disk may forget and nothing else. Bytes are durable once their file was synced, names once
//! their directory was; of what was not, a power cut keeps whatever [`Survives`] says, in pieces as small as asked for. A sync
//! that fails drops what it should have kept and succeeds the next time, as Linux does.
//! Not here: a model of time; a device that takes long is one whose syncs are held ([`SimDisk::hold_syncs`]). Direct writes that are not aligned are refused, as by the real disk.
//!
//! A test runs its workload on a [`SimDisk`] with [`SimDisk::record`], takes the [`SimDisk::moments`], one for each call that
//! changed something, and lets each of them crash into a disk of its own, as often and as badly as it likes.

mod crash;
mod fault;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use crash::{Fingerprints, Moment, Survives};
pub use fault::{Call, Fault};

use crate::disk::{ALIGN, Access, Disk, File, Listed, Lock};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A sync began to wait, or need not wait any more.
    gate: Condvar,
}

/// All of the disk.
#[derive(Default)]
struct State {
    files: Vec<SimFile>,
    /// The names as programs see them.
    names: BTreeMap<PathBuf, usize>,
    /// The names as they will be after a power cut, if none of `renamed` survives.
    durable_names: Arc<BTreeMap<PathBuf, usize>>,
    renamed: Vec<NameChange>,
    locked: BTreeSet<PathBuf>,
    faults: fault::Faults,
    moments: Option<Vec<Moment>>,
    calls: u64,
    looks: u64,
    bytes_read: u64,
    space: Option<u64>,
    direct: Direct,
    /// Syncs of files wait.
    held: bool,
    waiting: usize,
}

/// What a disk makes of direct writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direct {
    /// It takes them, if they are aligned.
    #[default]
    Taken,
    /// Files cannot be opened for them.
    RefusedAtOpen,
    /// Files can be opened for them, and then each fails.
    RefusedAtWrite,
}

#[derive(Default)]
struct SimFile {
    /// What programs read.
    current: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// What was written since the last sync, in order.
    pending: Vec<Arc<Piece>>,
}

/// Bytes on their way to the disk.
#[derive(Debug)]
struct Piece {
    at: u64,
    bytes: Vec<u8>,
}

/// A name that changed and is not durable yet.
#[derive(Clone, Debug)]
enum NameChange {
    Made(PathBuf, usize),
    Moved(PathBuf, PathBuf),
    Gone(PathBuf),
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimDisk").field("names", &state.names).field("calls", &state.calls).finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a [`Moment`] before each call that changes something, from now on.
    pub fn record(&self) {
        self.state().moments = Some(Vec::new());
    }

    /// The moments recorded so far, and one of now.
    #[must_use]
    pub fn moments(&self) -> Vec<Moment> {
        let mut state = self.state();
        let mut moments = state.moments.take().unwrap_or_default();
        moments.push(state.moment(None));
        moments
    }

    /// How many calls that change something were made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// How many calls that change nothing were made.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.state().looks
    }

    /// How many bytes were read.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    /// This very moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.state().moment(None)
    }

    /// Lets calls of a kind fail: the `nth` from now (0 is the next one), and all after it if `forever`.
    pub fn fail(&self, call: Call, nth: u64, fault: Fault, forever: bool) {
        self.state().faults.add(call, nth, fault, forever);
    }

    /// Lets nothing fail any more.
    pub fn heal(&self) {
        self.state().faults = fault::Faults::default();
    }

    /// Bounds the bytes that all files may take together; none for no bound.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state().space = bytes;
    }

    /// Says what becomes of direct writes.
    pub fn set_direct(&self, direct: Direct) {
        self.state().direct = direct;
    }

    /// Lets syncs of files wait, as on a device that takes very long, or lets them go on.
    pub fn hold_syncs(&self, hold: bool) {
        self.state().held = hold;
        self.shared.gate.notify_all();
    }

    /// Waits until at least one sync waits.
    pub fn until_a_sync_waits(&self) {
        let waited = self.shared.gate.wait_while(self.state(), |state| state.waiting == 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// What a file holds, as a program would read it.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        Some(Vec::clone(&state.files[*state.names.get(path)?].current))
    }

    /// Puts a durable file there, as if it had always been.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let id = state.files.len();
        let bytes = Arc::new(bytes);
        state.files.push(SimFile { durable: Arc::clone(&bytes), current: bytes, pending: Vec::new() });
        state.names.insert(path.to_owned(), id);
        Arc::make_mut(&mut state.durable_names).insert(path.to_owned(), id);
    }

    /// Changes a file behind the programs' back, durably: bits that rot, blocks that went astray.
    pub fn damage(&self, path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let Some(id) = state.names.get(path).copied() else { return };
        let file = &mut state.files[id];
        how(Arc::make_mut(&mut file.current));
        file.durable = Arc::clone(&file.current);
        file.pending.clear();
    }

    /// The names of all files.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }
}

impl State {
    /// A call that changes something is about to be made.
    fn about_to(&mut self, call: Call) -> io::Result<Option<usize>> {
        if self.moments.is_some() {
            let moment = self.moment(Some(call));
            if let Some(moments) = &mut self.moments {
                moments.push(moment);
            }
        }
        self.calls += 1;
        self.faults.meet(call)
    }

    /// A call that changes nothing is about to be made.
    fn about_to_look(&mut self, call: Call) -> io::Result<Option<usize>> {
        self.looks += 1;
        self.faults.meet(call)
    }

    fn id(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn taken(&self) -> u64 {
        self.names.values().map(|id| self.files[*id].current.len() as u64).sum()
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.about_to(Call::Create)?;
        let id = state.files.len();
        state.files.push(SimFile::default());
        state.names.insert(path.to_owned(), id);
        state.renamed.push(NameChange::Made(path.to_owned(), id));
        Ok(Box::new(Handle { disk: self.clone(), id, access }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.about_to_look(Call::Open)?;
        let id = state.id(path)?;
        if access == Access::WriteDirect && state.direct == Direct::RefusedAtOpen {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Box::new(Handle { disk: self.clone(), id, access }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.about_to(Call::Rename)?;
        let id = state.id(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), id);
        state.renamed.push(NameChange::Moved(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.id(path)?;
        state.about_to(Call::Remove)?;
        state.names.remove(path);
        state.renamed.push(NameChange::Gone(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut state = self.state();
        state.about_to_look(Call::List)?;
        let here = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let listed = here.filter_map(|(path, id)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(Listed { name, len: state.files[*id].current.len() as u64 })
        });
        Ok(listed.collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.about_to(Call::SyncDir)?;
        let (here, elsewhere) = std::mem::take(&mut state.renamed).into_iter().partition(|change| change.is_in(dir));
        state.renamed = elsewhere;
        let here: Vec<NameChange> = here;
        let names = Arc::make_mut(&mut state.durable_names);
        here.iter().for_each(|change| change.apply(names));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let free = self.state().locked.insert(path.to_owned());
        Ok(free.then(|| Box::new(Held { disk: self.clone(), path: path.to_owned() }) as Box<dyn Any + Send + Sync>))
    }
}

struct Held {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.state().locked.remove(&self.path);
    }
}

#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    id: usize,
    access: Access,
}

impl File for Handle {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let aligned = |n: u64| n.is_multiple_of(ALIGN as u64);
        let aligned = aligned(at) && aligned(bytes.len() as u64) && bytes.as_ptr().align_offset(ALIGN) == 0;
        if self.access == Access::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut state = self.disk.state();
        if self.access == Access::WriteDirect && !(aligned && state.direct == Direct::Taken) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let some = state.about_to(Call::Write)?.unwrap_or(bytes.len()).min(bytes.len());
        let end = at as usize + some;
        let grows = end.saturating_sub(state.files[self.id].current.len()) as u64;
        if grows > 0 && state.space.is_some_and(|space| state.taken() + grows > space) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = &mut state.files[self.id];
        let piece = Piece { at, bytes: bytes[..some].to_vec() };
        piece.apply(Arc::make_mut(&mut file.current));
        file.pending.push(Arc::new(piece));
        Ok(some)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let most = state.about_to_look(Call::Read)?.unwrap_or(bytes.len());
        let current = &state.files[self.id].current;
        let there = current.get(at as usize..).unwrap_or_default();
        let some = there.len().min(bytes.len()).min(most);
        bytes[..some].copy_from_slice(&there[..some]);
        state.bytes_read += some as u64;
        Ok(some)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.held {
            state.waiting += 1;
            let gate = &self.disk.shared.gate;
            gate.notify_all();
            state = gate.wait_while(state, |state| state.held).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        let met = state.about_to(Call::Sync);
        let file = &mut state.files[self.id];
        // Kept or dropped: after a sync, failed or not, the system takes these pages for clean.
        let pending = std::mem::take(&mut file.pending);
        met?;
        let durable = Arc::make_mut(&mut file.durable);
        pending.iter().for_each(|piece| piece.apply(durable));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.id].current.len() as u64)
    }
}

impl Piece {
    fn apply(&self, bytes: &mut Vec<u8>) {
        self.apply_part(bytes, 0..self.bytes.len());
    }

    fn apply_part(&self, bytes: &mut Vec<u8>, part: std::ops::Range<usize>) {
        let at = self.at as usize;
        if bytes.len() < at + part.end {
            bytes.resize(at + part.end, 0);
        }
        bytes[at + part.start..at + part.end].copy_from_slice(&self.bytes[part]);
    }
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Made(path, _) | Self::Moved(_, path) | Self::Gone(path)) = self;
        path.parent() == Some(dir)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Made(path, id) => drop(names.insert(path.clone(), *id)),
            // Where the file itself did not survive, its move has nothing to move.
            Self::Moved(from, to) => drop(names.remove(from).map(|id| names.insert(to.clone(), id))),
            Self::Gone(path) => drop(names.remove(path)),
        }
    }
}
