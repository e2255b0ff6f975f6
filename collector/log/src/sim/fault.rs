//! Which calls fail, and how.

use std::io;

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Making a file.
    Create,
    /// Opening one.
    Open,
    /// Reading from one.
    Read,
    /// Writing to one.
    Write,
    /// Making what was written durable.
    Sync,
    /// Giving a file another name.
    Rename,
    /// Removing one.
    Remove,
    /// Making names durable.
    SyncDir,
    /// Listing a directory.
    List,
    /// Any of those that change something.
    Change,
    /// Any of those that change nothing.
    Look,
}

/// What happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Input/output error. A sync drops what it should have kept.
    Io,
    /// No space left on the device.
    Full,
    /// Interrupted by a signal.
    Interrupted,
    /// At most so many bytes are read or written; other calls succeed.
    Short(usize),
}

#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    call: Call,
    after: u64,
    fault: Fault,
    forever: bool,
}

impl Call {
    fn is(self, other: Self) -> bool {
        let looks = matches!(other, Self::Open | Self::Read | Self::List);
        match self {
            Self::Change => !looks,
            Self::Look => looks,
            kind => kind == other,
        }
    }
}

impl Faults {
    pub(super) fn add(&mut self, call: Call, after: u64, fault: Fault, forever: bool) {
        self.0.push(Waiting { call, after, fault, forever });
    }

    /// A call is made: an error, or how many bytes it may move at most.
    pub(super) fn meet(&mut self, call: Call) -> io::Result<Option<usize>> {
        let mut met = None;
        self.0.retain_mut(|waiting| {
            if !waiting.call.is(call) {
                return true;
            }
            if waiting.after > 0 {
                waiting.after -= 1;
                return true;
            }
            met.get_or_insert(waiting.fault);
            waiting.forever
        });
        match met {
            None => Ok(None),
            Some(Fault::Short(bytes)) => Ok(Some(bytes)),
            // EIO has no kind of its own.
            Some(Fault::Io) => Err(rustix::io::Errno::IO.into()),
            Some(Fault::Full) => Err(rustix::io::Errno::NOSPC.into()),
            Some(Fault::Interrupted) => Err(rustix::io::Errno::INTR.into()),
        }
    }
}
