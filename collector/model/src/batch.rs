//! A batch: one export request, kept as the bytes that came.

use bytes::Bytes;

use crate::ids::{Offset, UnixNanos};

/// One accepted export request, as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The offset of its first span.
    pub offset: Offset,
    /// How many spans it holds; at least one, for a request without spans is answered and not kept.
    pub spans: u32,
    /// When it was appended.
    pub received_at: UnixNanos,
    /// Which ingest key it came under; 0 if none was asked for.
    pub key: u16,
    /// What the walk saw.
    pub flags: Flags,
    /// An encoded `ExportTraceServiceRequest`, checked by the walk.
    pub body: Bytes,
}

impl Batch {
    /// The offset after its last span: where the next batch begins.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.offset.plus(u64::from(self.spans))
    }
}

/// What the walk saw in a batch, so that a consumer need not look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// Some span carries what Phoenix drops or chokes on, or lacks what Phoenix cannot derive: it must be mended in a copy
    /// before it is forwarded there.
    pub const MEND: Self = Self(1);

    /// [`Batch::spans`] is what the walk counted in these very bytes: who knows how many lie under all resources but one knows that one's.
    pub const COUNTED: Self = Self(2);

    /// Whether all of `other`'s flags are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and `other`'s.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
