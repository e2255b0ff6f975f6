//! OTLP's field keys: the number and the wire type of each field, as `trace.proto`, `common.proto` and `resource.proto`
//! give them.

macro_rules! keys {
    ($($message:ident { $($name:ident = $number:literal $wire:ident;)* })*) => {
        $(pub(super) mod $message {
            use super::super::read;
            $(pub(in super::super) const $name: u32 = read::key($number, read::$wire);)*
            /// The fields that this message knows, as bits of their numbers.
            pub(in super::super) const KNOWN: u32 = 0 $(| 1 << $number)*;
        })*
    };
}

keys! {
    request { RESOURCE_SPANS = 1 LENGTH; }
    resource_spans { RESOURCE = 1 LENGTH; SCOPE_SPANS = 2 LENGTH; SCHEMA_URL = 3 LENGTH; }
    resource { ATTRIBUTES = 1 LENGTH; DROPPED = 2 VARINT; ENTITY_REFS = 3 LENGTH; }
    entity_ref { SCHEMA_URL = 1 LENGTH; TYPE = 2 LENGTH; ID_KEYS = 3 LENGTH; DESCRIPTION_KEYS = 4 LENGTH; }
    scope_spans { SCOPE = 1 LENGTH; SPANS = 2 LENGTH; SCHEMA_URL = 3 LENGTH; }
    scope { NAME = 1 LENGTH; VERSION = 2 LENGTH; ATTRIBUTES = 3 LENGTH; DROPPED = 4 VARINT; }
    span {
        TRACE_ID = 1 LENGTH; SPAN_ID = 2 LENGTH; TRACE_STATE = 3 LENGTH; PARENT_SPAN_ID = 4 LENGTH; NAME = 5 LENGTH;
        KIND = 6 VARINT; START = 7 FIXED64; END = 8 FIXED64; ATTRIBUTES = 9 LENGTH; DROPPED_ATTRIBUTES = 10 VARINT;
        EVENTS = 11 LENGTH; DROPPED_EVENTS = 12 VARINT; LINKS = 13 LENGTH; DROPPED_LINKS = 14 VARINT; STATUS = 15 LENGTH;
        FLAGS = 16 FIXED32;
    }
    // Field 1 was a code once and is unknown now.
    status { MESSAGE = 2 LENGTH; CODE = 3 VARINT; }
    event { TIME = 1 FIXED64; NAME = 2 LENGTH; ATTRIBUTES = 3 LENGTH; DROPPED = 4 VARINT; }
    link {
        TRACE_ID = 1 LENGTH; SPAN_ID = 2 LENGTH; TRACE_STATE = 3 LENGTH; ATTRIBUTES = 4 LENGTH; DROPPED = 5 VARINT;
        FLAGS = 6 FIXED32;
    }
    key_value { KEY = 1 LENGTH; VALUE = 2 LENGTH; KEY_STRINDEX = 3 VARINT; }
    any_value {
        STRING = 1 LENGTH; BOOL = 2 VARINT; INT = 3 VARINT; DOUBLE = 4 FIXED64; ARRAY = 5 LENGTH; KVLIST = 6 LENGTH;
        BYTES = 7 LENGTH; STRINDEX = 8 VARINT;
    }
    // Both of the lists that a value can be.
    list { VALUES = 1 LENGTH; }
}
