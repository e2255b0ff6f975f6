//! The contract in the plugins' protobuf.
