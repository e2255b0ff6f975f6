//! The columns of the archive: their names, types, order and encodings.
//!
//! On disk: [`MESSAGE`] is the schema as Parquet tools print it; [`Column`] numbers its leaves. Both are part of version 1 and do not
//! change without a new one.

use std::sync::{Arc, OnceLock};

use parquet::errors::ParquetError;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor};

/// The schema.
pub const MESSAGE: &str = "
message span {
  required binary trace_id (STRING);
  required binary span_id (STRING);
  optional binary parent_span_id (STRING);
  required binary name (STRING);
  required binary kind (STRING);
  required int64 start_time (TIMESTAMP(NANOS, true));
  required int64 end_time (TIMESTAMP(NANOS, true));
  required double duration_ms;
  required binary status (STRING);
  optional binary status_message (STRING);
  optional binary service (STRING);
  required binary project (STRING);
  optional binary scope (STRING);
  optional binary scope_version (STRING);
  optional binary span_kind (STRING);
  optional binary model (STRING);
  optional binary provider (STRING);
  optional int64 prompt_tokens;
  optional int64 completion_tokens;
  optional int64 total_tokens;
  optional int64 cost (DECIMAL(18, 12));
  optional binary prompt_id (STRING);
  optional binary session_id (STRING);
  optional binary user_id (STRING);
  optional double ttft_ms;
  optional binary input (STRING);
  optional binary output (STRING);
  required group attributes (MAP) {
    repeated group key_value { required binary key (STRING); required binary value (STRING); }
  }
  required group resource (MAP) {
    repeated group key_value { required binary key (STRING); required binary value (STRING); }
  }
  required group events (LIST) {
    repeated group list {
      required group element {
        required int64 time (TIMESTAMP(NANOS, true));
        required binary name (STRING);
        required group attributes (MAP) {
          repeated group key_value { required binary key (STRING); required binary value (STRING); }
        }
        required int64 dropped_attributes;
      }
    }
  }
  required group links (LIST) {
    repeated group list {
      required group element {
        required binary trace_id (STRING);
        required binary span_id (STRING);
        required binary trace_state (STRING);
        required group attributes (MAP) {
          repeated group key_value { required binary key (STRING); required binary value (STRING); }
        }
        required int64 flags;
        required int64 dropped_attributes;
      }
    }
  }
  required int64 received_at (TIMESTAMP(NANOS, true));
  required int64 log_offset;
  optional int64 ingest_key;
  optional binary trace_state (STRING);
  optional int64 flags;
  optional binary extra (STRING);
}";

/// How a column's values lie in its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Texts as they are.
    Plain,
    /// Texts by their number in a dictionary, while that is small.
    Dict,
    /// Whole numbers as differences.
    Int,
    /// Doubles as they are.
    Double,
}

/// A leaf of the schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) coding: Coding,
    /// Its pages are compressed; those of numbers as differences are dense already.
    pub(super) zstd: bool,
    /// Its row groups have a bloom filter.
    pub(super) bloom: bool,
    pub(super) rep_max: u8,
    pub(super) def_max: u8,
}

macro_rules! columns {
    ($($name:ident $coding:ident $zstd:literal $bloom:literal $rep:literal $def:literal;)*) => {
        /// The leaves, in the order of the schema.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub(super) enum Column { $($name,)* }

        /// What each of them is.
        pub(super) static SPECS: &[Spec] = &[
            $(Spec { coding: Coding::$coding, zstd: $zstd, bloom: $bloom, rep_max: $rep, def_max: $def },)*
        ];
    };
}

columns! {
    // coding, zstd, bloom, deepest repetition, deepest definition
    TraceId Dict true true 0 0;
    SpanId Plain true true 0 0;
    ParentSpanId Dict true false 0 1;
    Name Dict true false 0 0;
    Kind Dict true false 0 0;
    StartTime Int false false 0 0;
    EndTime Int false false 0 0;
    DurationMs Double true false 0 0;
    Status Dict true false 0 0;
    StatusMessage Dict true false 0 1;
    Service Dict true false 0 1;
    Project Dict true false 0 0;
    Scope Dict true false 0 1;
    ScopeVersion Dict true false 0 1;
    SpanKind Dict true false 0 1;
    Model Dict true false 0 1;
    Provider Dict true false 0 1;
    PromptTokens Int false false 0 1;
    CompletionTokens Int false false 0 1;
    TotalTokens Int false false 0 1;
    Cost Int false false 0 1;
    PromptId Dict true false 0 1;
    SessionId Dict true true 0 1;
    UserId Dict true true 0 1;
    TtftMs Double true false 0 1;
    Input Plain true false 0 1;
    Output Plain true false 0 1;
    AttributeKey Dict true false 1 1;
    AttributeValue Plain true false 1 1;
    ResourceKey Dict true false 1 1;
    ResourceValue Dict true false 1 1;
    EventTime Int false false 1 1;
    EventName Dict true false 1 1;
    EventKey Dict true false 2 2;
    EventValue Plain true false 2 2;
    EventDropped Int false false 1 1;
    LinkTrace Plain true false 1 1;
    LinkSpan Plain true false 1 1;
    LinkState Dict true false 1 1;
    LinkKey Dict true false 2 2;
    LinkValue Plain true false 2 2;
    LinkFlags Int false false 1 1;
    LinkDropped Int false false 1 1;
    ReceivedAt Int false false 0 0;
    LogOffset Int false false 0 0;
    IngestKey Int false false 0 1;
    TraceState Dict true false 0 1;
    Flags Int false false 0 1;
    Extra Dict true false 0 1;
}

/// The columns of events.
pub(super) const OF_EVENTS: [Column; 5] =
    [Column::EventTime, Column::EventName, Column::EventKey, Column::EventValue, Column::EventDropped];
/// The columns of links.
pub(super) const OF_LINKS: [Column; 7] = [
    Column::LinkTrace,
    Column::LinkSpan,
    Column::LinkState,
    Column::LinkKey,
    Column::LinkValue,
    Column::LinkFlags,
    Column::LinkDropped,
];

/// The schema, parsed once.
pub(super) fn descriptor() -> Result<SchemaDescPtr, ParquetError> {
    static PARSED: OnceLock<SchemaDescPtr> = OnceLock::new();
    if let Some(known) = PARSED.get() {
        return Ok(Arc::clone(known));
    }
    let parsed = Arc::new(SchemaDescriptor::new(Arc::new(parse_message_type(MESSAGE)?)));
    Ok(Arc::clone(PARSED.get_or_init(|| parsed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of columns is that of the schema, leaf by leaf.
    #[test]
    fn the_columns_are_those_of_the_schema() {
        let schema = descriptor().unwrap();
        assert_eq!(schema.num_columns(), SPECS.len());
        for (leaf, spec) in schema.columns().iter().zip(SPECS) {
            let path = leaf.path().string();
            assert_eq!(leaf.max_rep_level(), i16::from(spec.rep_max), "{path}");
            assert_eq!(leaf.max_def_level(), i16::from(spec.def_max), "{path}");
            use parquet::basic::Type;
            let physical = match spec.coding {
                Coding::Plain | Coding::Dict => Type::BYTE_ARRAY,
                Coding::Int => Type::INT64,
                Coding::Double => Type::DOUBLE,
            };
            assert_eq!(leaf.physical_type(), physical, "{path}");
        }
        let path = |column: Column| schema.column(column as usize).path().string();
        assert_eq!(path(Column::TotalTokens), "total_tokens");
        assert_eq!(path(Column::AttributeValue), "attributes.key_value.value");
        assert_eq!(path(Column::LinkDropped), "links.list.element.dropped_attributes");
        assert_eq!(path(Column::Extra), "extra");
    }
}
