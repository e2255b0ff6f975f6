//! Examples to files.
//!
//! Promise: what is written is read back equal by [`import`](crate::import::import), and by other people's readers of the format.
//! CSV holds other JSON than text by the rule in `cell`; Parquet holds it in columns of their own type, or as JSON text in
//! columns that say so.
//! Kept by: `tests/round_trip.rs`, `tests/python.rs`.

use std::io::Write;

use crate::example::{Example, Type};
use crate::import::Format;
use crate::{csv, json, parquet_out};

/// Writes examples of this type. Fields that the type does not have are left out.
pub fn export(
    r#type: Type,
    format: Format,
    examples: &[Example],
    out: &mut (impl Write + Send),
) -> std::io::Result<()> {
    match format {
        Format::Json => json::write(r#type, examples.iter(), out),
        Format::Jsonl => json::write_lines(r#type, examples.iter(), out),
        Format::Csv => csv::write(r#type, examples.iter(), b',', out),
        Format::Parquet => parquet_out::write(r#type, examples, out),
    }
}
