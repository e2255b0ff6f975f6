//! Parquet, written: one row an example, zstd.
//!
//! On disk: `id` and the type's texts are required UTF-8. A column of any JSON is of the one type that all its values have (text,
//! INT64, DOUBLE, BOOLEAN), else JSON text with the logical type JSON. `metadata` is always the latter. No value is null.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type as Schema;
use serde_json::Value;

use crate::example::{Example, Role, Type};

/// Examples in a row group: what is in memory at once beside the examples.
const GROUP: usize = 10_000;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Text,
    Int,
    Double,
    Bool,
    Json,
}

/// Where a column's values come from.
#[derive(Clone, Copy)]
enum From {
    Id,
    Field(Role),
    Metadata,
}

struct Column {
    name: &'static str,
    from: From,
    holds: Holds,
    required: bool,
}

impl Column {
    fn value(&self, example: &Example) -> Option<Value> {
        match self.from {
            From::Id => Some(example.id.as_str().into()),
            From::Field(role) => example.at(role).cloned(),
            From::Metadata => (!example.metadata.is_empty()).then(|| example.metadata.clone().into()),
        }
    }

    fn schema(&self) -> Result<Schema, ParquetError> {
        let (physical, logical) = match self.holds {
            Holds::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Holds::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
            Holds::Int => (Physical::INT64, None),
            Holds::Double => (Physical::DOUBLE, None),
            Holds::Bool => (Physical::BOOLEAN, None),
        };
        let repetition = if self.required { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        Schema::primitive_type_builder(self.name, physical)
            .with_logical_type(logical)
            .with_repetition(repetition)
            .build()
    }
}

/// The one type that all values have, text if there are none.
fn holds<'a>(mut values: impl Iterator<Item = &'a Value>) -> Holds {
    let of = |value: &Value| match value {
        Value::String(_) => Holds::Text,
        Value::Bool(_) => Holds::Bool,
        Value::Number(number) if number.is_i64() => Holds::Int,
        Value::Number(number) if number.is_f64() => Holds::Double,
        _ => Holds::Json,
    };
    let Some(first) = values.next().map(of) else { return Holds::Text };
    if values.all(|value| of(value) == first) { first } else { Holds::Json }
}

pub(crate) fn write(r#type: Type, examples: &[Example], out: &mut (impl Write + Send)) -> std::io::Result<()> {
    write_all(r#type, examples, out).map_err(|error| match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(error) => *error,
            Err(source) => std::io::Error::other(source),
        },
        other => std::io::Error::other(other),
    })
}

fn write_all(r#type: Type, examples: &[Example], out: &mut (impl Write + Send)) -> Result<(), ParquetError> {
    let mut columns = vec![Column { name: "id", from: From::Id, holds: Holds::Text, required: true }];
    for field in r#type.fields() {
        let values = examples.iter().filter_map(|example| example.at(field.role));
        let holds = holds(values);
        columns.push(Column { name: field.name, from: From::Field(field.role), holds, required: field.required });
    }
    columns.push(Column { name: "metadata", from: From::Metadata, holds: Holds::Json, required: false });
    let fields = columns.iter().map(|column| Ok(Arc::new(column.schema()?))).collect::<Result<_, ParquetError>>()?;
    let schema = Arc::new(Schema::group_type_builder("examples").with_fields(fields).build()?);
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?)).build();
    let mut file = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
    for examples in examples.chunks(GROUP) {
        let mut group = file.next_row_group()?;
        for column in &columns {
            let values: Vec<_> = examples.iter().map(|example| column.value(example)).collect();
            write_column(&mut group, column, &values)?;
        }
        group.close()?;
    }
    file.close().map(drop)
}

fn write_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column: &Column,
    values: &[Option<Value>],
) -> Result<(), ParquetError> {
    let text = |value: &Value| ByteArray::from(value.as_str().unwrap_or_default());
    let json = |value: &Value| ByteArray::from(value.to_string().into_bytes());
    match column.holds {
        Holds::Text => put::<ByteArrayType, _>(group, column, values, text),
        Holds::Json => put::<ByteArrayType, _>(group, column, values, json),
        Holds::Int => put::<Int64Type, _>(group, column, values, |value| value.as_i64().unwrap_or_default()),
        Holds::Double => put::<DoubleType, _>(group, column, values, |value| value.as_f64().unwrap_or_default()),
        Holds::Bool => put::<BoolType, _>(group, column, values, |value| value.as_bool().unwrap_or_default()),
    }
}

fn put<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column: &Column,
    values: &[Option<Value>],
    of: impl Fn(&Value) -> T::T,
) -> Result<(), ParquetError> {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let there: Vec<T::T> = values.iter().flatten().map(of).collect();
    let missing = || ParquetError::General(format!("the schema has no column {}", column.name));
    let mut writer = group.next_column()?.ok_or_else(missing)?;
    writer.typed::<T>().write_batch(&there, (!column.required).then_some(&levels[..]), None)?;
    writer.close()
}
