//! STUB of the border; its owner fills it in.

/// The body is not OTLP/JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at line {line}, column {column}")]
pub struct Error {
    /// What is wrong.
    pub what: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
}

/// Decodes an OTLP/JSON export request and encodes it as protobuf.
pub fn to_protobuf(_body: &[u8]) -> Result<Vec<u8>, Error> {
    unimplemented!()
}
