//! Parquet, read: by rows, of any schema.
//!
//! Promise: text must be UTF-8, numbers finite (NaN is no value, as pandas writes it). Lists, structs and maps are lists and
//! objects; a column with the logical type JSON is what it says; moments and days are RFC 3339 text, decimals and times of day text.
//! What the file says of its own size and shape is held against the limits before a row is read.
//! Panics: the `parquet` crate is not written for hostile bytes. Its panics are caught and are an error here, where panics unwind;
//! other people's files are read in a process of their own (`apart`).
//! Not here: columns encrypted, or compressed otherwise than by snappy or zstd: they are an error that says so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type as Schema;
use serde_json::{Map, Number, Value};
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, OffsetDateTime};

use crate::import::{Error, RowSink};

/// Leaf columns in a file.
const COLUMNS_MAX: usize = 1_000;

/// Structs within structs.
const DEPTH_MAX: usize = 32;

/// The index that pandas adds when it is not the plain count.
const INDEX: &str = "__index_level_";

/// How a column of the top is to be taken, beyond its physical type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    AsIs,
    Json,
    Nanos,
}

/// Reads all rows.
pub(crate) fn read<S: ChunkReader + 'static>(source: S, rows: &mut impl RowSink) -> Result<(), Error> {
    catch_unwind(AssertUnwindSafe(|| read_rows(source, rows))).unwrap_or_else(|_| {
        Err(Error::Unreadable { place: "the file".to_owned(), what: "its Parquet is malformed".to_owned() })
    })
}

fn broken(place: &str, error: &ParquetError) -> Error {
    Error::Unreadable { place: place.to_owned(), what: error.to_string() }
}

fn read_rows<S: ChunkReader + 'static>(source: S, rows: &mut impl RowSink) -> Result<(), Error> {
    let file = SerializedFileReader::new(source).map_err(|error| broken("the file's footer", &error))?;
    let metadata = file.metadata();
    let schema = metadata.file_metadata().schema_descr();
    let limits = rows.limits();
    if schema.num_columns() > COLUMNS_MAX || depth(schema.root_schema(), DEPTH_MAX).is_none() {
        let what = format!("more than {COLUMNS_MAX} columns, or {DEPTH_MAX} structs within each other");
        return Err(Error::Columns { what });
    }
    let (mut count, mut bytes) = (0_i64, 0_i64);
    for group in metadata.row_groups() {
        count = count.saturating_add(group.num_rows().max(0));
        for column in group.columns() {
            // The reader asserts that they are not negative.
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            if start < 0 || column.compressed_size() < 0 {
                let what = "a column begins before the file".to_owned();
                return Err(Error::Unreadable { place: "the file's footer".to_owned(), what });
            }
            bytes =
                bytes.saturating_add(column.uncompressed_size().max(0)).saturating_add(column.compressed_size().max(0));
        }
    }
    if u64::try_from(count).is_ok_and(|count| count > limits.rows as u64) {
        return Err(Error::TooLarge { what: "the file has rows".into(), max: limits.rows as u64 });
    }
    if u64::try_from(bytes).is_ok_and(|bytes| bytes > limits.total_bytes.saturating_mul(2)) {
        return Err(Error::TooLarge { what: "all rows together have bytes".into(), max: limits.total_bytes });
    }
    let root = schema.root_schema();
    let names: Vec<_> = root.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let names: Vec<_> = names.into_iter().filter(|name| !name.starts_with(INDEX)).collect();
    rows.header(&names)?;
    // What is left out is not even inflated.
    let wanted = |field: &&Arc<Schema>| !field.name().starts_with(INDEX) && rows.wants(field.name());
    let fields: Vec<_> = root.get_fields().iter().filter(wanted).cloned().collect();
    let takes: Vec<_> = fields.iter().map(|field| take(field)).collect();
    let wanted = Schema::group_type_builder(root.name()).with_fields(fields).build();
    let records = wanted.and_then(|wanted| file.get_row_iter(Some(wanted)));
    let records = records.map_err(|error| broken("row 1", &error))?;
    let mut seen = 0;
    for record in records {
        seen += 1;
        let record = record.map_err(|error| broken(&format!("row {seen}"), &error))?;
        let mut bytes = 0;
        let row = object(record, &takes, &mut bytes);
        let row = row.map_err(|what| Error::Unreadable { place: format!("row {seen}"), what })?;
        rows.row(None, bytes, row.into())?;
    }
    if seen != count {
        let what = format!("has {seen} rows, says that it has {count}");
        return Err(Error::Unreadable { place: "the file".to_owned(), what });
    }
    Ok(())
}

/// How deep it is; none if deeper than `left`.
fn depth(schema: &Schema, left: usize) -> Option<usize> {
    if !schema.is_group() {
        return Some(left);
    }
    let left = left.checked_sub(1)?;
    schema.get_fields().iter().try_fold(left, |least, field| depth(field, left).map(|left| left.min(least)))
}

fn take(field: &Schema) -> Take {
    if !field.is_primitive() {
        return Take::AsIs;
    }
    let info = field.get_basic_info();
    let is_nanos = |logical: &LogicalType| match logical {
        LogicalType::Timestamp { .. } => field.get_physical_type() == Physical::INT64 && nanos(logical),
        _ => false,
    };
    if info.converted_type() == ConvertedType::JSON || info.logical_type_ref() == Some(&LogicalType::Json) {
        Take::Json
    } else if info.logical_type_ref().is_some_and(is_nanos) {
        Take::Nanos
    } else {
        Take::AsIs
    }
}

fn nanos(logical: &LogicalType) -> bool {
    [true, false].iter().any(|&utc| *logical == LogicalType::timestamp(utc, TimeUnit::NANOS))
}

fn object(record: Record, takes: &[Take], bytes: &mut u64) -> Result<Map<String, Value>, String> {
    let mut row = Map::new();
    for (index, (name, field)) in record.into_columns().into_iter().enumerate() {
        // A name stands in the file once and in every row that is made of it.
        *bytes += name.len() as u64;
        let value = match (takes.get(index), field) {
            (Some(Take::Json), Field::Str(text)) => {
                *bytes += 8 + text.len() as u64;
                serde_json::from_str(&text).map_err(|_| format!("{name}: is not JSON, as its column says"))?
            }
            (Some(Take::Nanos), Field::Long(at)) => {
                *bytes += 8;
                moment(i128::from(at))
            }
            (_, field) => value(field, bytes).map_err(|what| format!("{name}: {what}"))?,
        };
        row.insert(name, value);
    }
    Ok(row)
}

fn value(field: Field, bytes: &mut u64) -> Result<Value, String> {
    *bytes += 8;
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => double(f64::from(value))?,
        // By way of its shortest text, so that 0.1 stays 0.1.
        Field::Float(value) => double(value.to_string().parse().unwrap_or(f64::from(value)))?,
        Field::Double(value) => double(value)?,
        Field::Str(text) => {
            *bytes += text.len() as u64;
            text.into()
        }
        Field::Bytes(value) => {
            *bytes += value.len() as u64;
            String::from_utf8(value.data().to_vec()).map_err(|_| "is not UTF-8".to_owned())?.into()
        }
        decimal @ Field::Decimal(_) => decimal.to_string().into(),
        Field::Date(days) => day(days),
        Field::TimeMillis(value) => time_of_day(i64::from(value).saturating_mul(1_000)),
        Field::TimeMicros(value) => time_of_day(value),
        Field::TimestampMillis(at) => moment(i128::from(at) * 1_000_000),
        Field::TimestampMicros(at) => moment(i128::from(at) * 1_000),
        Field::Group(record) => object(record, &[], bytes)?.into(),
        Field::ListInternal(list) => {
            let values = list.elements().iter().map(|field| value(field.clone(), bytes));
            values.collect::<Result<Vec<_>, _>>()?.into()
        }
        Field::MapInternal(entries) => {
            let mut map = Map::new();
            for (key, field) in entries.entries() {
                let key = match value(key.clone(), bytes)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                map.insert(key, value(field.clone(), bytes)?);
            }
            map.into()
        }
    })
}

fn double(value: f64) -> Result<Value, String> {
    match Number::from_f64(value) {
        Some(number) => Ok(number.into()),
        None if value.is_nan() => Ok(Value::Null),
        None => Err("is not a finite number".to_owned()),
    }
}

fn moment(nanos: i128) -> Value {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|at| at.format(&Rfc3339).ok());
    moment.map_or_else(|| nanos.to_string().into(), Value::String)
}

fn day(days: i32) -> Value {
    let epoch = OffsetDateTime::UNIX_EPOCH.date();
    let date: Option<Date> = epoch.checked_add(Duration::days(days.into()));
    date.map_or_else(|| days.to_string(), |date| date.to_string()).into()
}

fn time_of_day(micros: i64) -> Value {
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3_600, seconds / 60 % 60, seconds % 60).into()
}
