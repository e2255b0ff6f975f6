//! Batches to columns to files, and back.
