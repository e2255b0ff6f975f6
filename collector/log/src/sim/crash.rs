//! Power cuts: what is left of a moment.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Call, NameChange, Piece, Shared, SimDisk, SimFile, State};

/// The disk between two calls, with all that was not durable then.
#[derive(Clone, Debug)]
pub struct Moment {
    /// How many calls that change something had been made.
    pub calls: u64,
    /// Which call comes next; none if none is known.
    pub call: Option<Call>,
    files: Vec<Kept>,
    durable_names: Arc<BTreeMap<PathBuf, usize>>,
    renamed: Vec<NameChange>,
}

/// A file's durable bytes, and what was written to it since.
#[derive(Clone, Debug)]
struct Kept {
    durable: Arc<Vec<u8>>,
    pending: Vec<Arc<Piece>>,
}

/// Hashes of contents that were met before: most files of a moment are those of the last one.
#[derive(Debug, Default)]
pub struct Fingerprints(HashMap<usize, (Arc<Vec<u8>>, u64)>);

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// Nothing.
    Nothing,
    /// All of it: the process was killed, the machine lived on.
    Everything,
    /// Each piece of this many bytes, and each change of a name, with even chances.
    Some {
        /// The size of a piece, aligned in the file.
        unit: usize,
        /// Which ones.
        seed: u64,
    },
    /// All but the last write, and of that the first bytes.
    Torn {
        /// How many of them.
        bytes: usize,
    },
}

impl State {
    pub(super) fn moment(&self, call: Option<Call>) -> Moment {
        Moment {
            calls: self.calls,
            call,
            files: self.files.iter().map(SimFile::kept).collect(),
            durable_names: Arc::clone(&self.durable_names),
            renamed: self.renamed.clone(),
        }
    }
}

impl Moment {
    /// How long the last write is that was not synced; 0 if there is none.
    #[must_use]
    pub fn last_write_bytes(&self) -> usize {
        self.files.iter().filter_map(|file| file.pending.last()).map(|piece| piece.bytes.len()).max().unwrap_or(0)
    }

    /// Whether anything could be lost: else all power cuts leave the same.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.renamed.is_empty() && self.files.iter().all(|file| file.pending.is_empty())
    }

    /// The disk as it is found after a power cut at this moment.
    #[must_use]
    pub fn crash(&self, survives: Survives) -> SimDisk {
        let mut chance = Chance(match survives {
            Survives::Some { seed, .. } => seed,
            _ => 0,
        });
        let mut names = Arc::clone(&self.durable_names);
        for change in &self.renamed {
            let kept = match survives {
                Survives::Nothing => false,
                Survives::Everything | Survives::Torn { .. } => true,
                Survives::Some { .. } => chance.even(),
            };
            if kept {
                change.apply(Arc::make_mut(&mut names));
            }
        }
        let files = self.files.iter().map(|Kept { durable, pending }| {
            // Most files of a moment are durable: those are shared, not copied.
            if pending.is_empty() {
                return SimFile { current: Arc::clone(durable), durable: Arc::clone(durable), pending: Vec::new() };
            }
            let mut bytes = Vec::clone(durable);
            for (nth, piece) in pending.iter().enumerate() {
                let last = nth + 1 == pending.len();
                match survives {
                    Survives::Nothing => {}
                    Survives::Torn { bytes: kept } if last => {
                        piece.apply_part(&mut bytes, 0..kept.min(piece.bytes.len()));
                    }
                    Survives::Everything | Survives::Torn { .. } => piece.apply(&mut bytes),
                    Survives::Some { unit, .. } => piece.apply_some(&mut bytes, unit, &mut chance),
                }
            }
            let bytes = Arc::new(bytes);
            SimFile { current: Arc::clone(&bytes), durable: bytes, pending: Vec::new() }
        });
        let state = State {
            files: files.collect(),
            names: BTreeMap::clone(&names),
            durable_names: names,
            calls: self.calls,
            ..State::default()
        };
        SimDisk { shared: Arc::new(Shared { state: state.into(), ..Shared::default() }) }
    }
}

impl SimDisk {
    /// A number that is the same for disks that hold the same bytes under the same names, and else hardly ever.
    #[must_use]
    pub fn fingerprint(&self, known: &mut Fingerprints) -> u64 {
        let state = self.state();
        let mut hasher = DefaultHasher::new();
        for (path, id) in &state.names {
            path.as_os_str().hash(&mut hasher);
            known.of(&state.files[*id].current).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Fingerprints {
    fn of(&mut self, bytes: &Arc<Vec<u8>>) -> u64 {
        let place = Arc::as_ptr(bytes) as usize;
        if let Some((_, hash)) = self.0.get(&place) {
            return *hash;
        }
        let mut hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
        hash ^= (bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Held by the file twice; by more than that if a moment holds it too, and others will meet it.
        if Arc::strong_count(bytes) > 2 {
            self.0.insert(place, (Arc::clone(bytes), hash));
        }
        hash
    }
}

impl SimFile {
    fn kept(&self) -> Kept {
        Kept { durable: Arc::clone(&self.durable), pending: self.pending.clone() }
    }
}

impl Piece {
    fn apply_some(&self, bytes: &mut Vec<u8>, unit: usize, chance: &mut Chance) {
        let mut from = 0;
        while from < self.bytes.len() {
            let to = ((self.at as usize + from) / unit * unit + unit - self.at as usize).min(self.bytes.len());
            if chance.even() {
                self.apply_part(bytes, from..to);
            }
            from = to;
        }
    }
}

/// Numbers that look random, and come again with the same seed.
struct Chance(u64);

impl Chance {
    fn even(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}
