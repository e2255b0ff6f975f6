//! OTLP's messages as their JSON form names them: `trace.proto`, `common.proto` and `resource.proto` as tables.

/// What a field holds.
pub(super) enum Kind {
    Text,
    Texts,
    /// Bytes written in hex.
    Id,
    /// Bytes written in base64.
    Bytes,
    Bool,
    Enum,
    Int32,
    Int64,
    Uint32,
    Fixed32,
    Fixed64,
    Double,
    Message(&'static Shape),
    Messages(&'static Shape),
}

pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
}

pub(super) struct Shape {
    pub(super) fields: &'static [Field],
    /// Only one of the fields may be set, and is written even if it is zero.
    pub(super) oneof: bool,
}

/// Fields that a message has at most.
pub(super) const FIELDS_MAX: usize = 16;

impl Shape {
    /// The field of that name, and the how-manieth it is.
    pub(super) fn field(&self, name: &[u8]) -> Option<(usize, &'static Field)> {
        self.fields.iter().enumerate().find(|(_, field)| field.name.as_bytes() == name)
    }
}

macro_rules! shapes {
    ($($shape:ident $($oneof:ident)? { $($name:literal = $number:literal $kind:expr;)* })*) => {
        $(pub(super) static $shape: Shape = Shape {
            fields: &[$(Field { name: $name, number: $number, kind: $kind }),*],
            oneof: shapes!(@ $($oneof)?),
        };
        const _: () = assert!($shape.fields.len() <= FIELDS_MAX);)*
    };
    (@) => { false };
    (@ oneof) => { true };
}

use Kind::{Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int32, Int64, Message, Messages, Text, Texts, Uint32};

shapes! {
    REQUEST { "resourceSpans" = 1 Messages(&RESOURCE_SPANS); }
    RESOURCE_SPANS {
        "resource" = 1 Message(&RESOURCE);
        "scopeSpans" = 2 Messages(&SCOPE_SPANS);
        "schemaUrl" = 3 Text;
    }
    RESOURCE {
        "attributes" = 1 Messages(&KEY_VALUE);
        "droppedAttributesCount" = 2 Uint32;
        "entityRefs" = 3 Messages(&ENTITY_REF);
    }
    ENTITY_REF { "schemaUrl" = 1 Text; "type" = 2 Text; "idKeys" = 3 Texts; "descriptionKeys" = 4 Texts; }
    SCOPE_SPANS {
        "scope" = 1 Message(&SCOPE);
        "spans" = 2 Messages(&SPAN);
        "schemaUrl" = 3 Text;
    }
    SCOPE {
        "name" = 1 Text;
        "version" = 2 Text;
        "attributes" = 3 Messages(&KEY_VALUE);
        "droppedAttributesCount" = 4 Uint32;
    }
    SPAN {
        "traceId" = 1 Id;
        "spanId" = 2 Id;
        "traceState" = 3 Text;
        "parentSpanId" = 4 Id;
        "name" = 5 Text;
        "kind" = 6 Enum;
        "startTimeUnixNano" = 7 Fixed64;
        "endTimeUnixNano" = 8 Fixed64;
        "attributes" = 9 Messages(&KEY_VALUE);
        "droppedAttributesCount" = 10 Uint32;
        "events" = 11 Messages(&EVENT);
        "droppedEventsCount" = 12 Uint32;
        "links" = 13 Messages(&LINK);
        "droppedLinksCount" = 14 Uint32;
        "status" = 15 Message(&STATUS);
        "flags" = 16 Fixed32;
    }
    EVENT {
        "timeUnixNano" = 1 Fixed64;
        "name" = 2 Text;
        "attributes" = 3 Messages(&KEY_VALUE);
        "droppedAttributesCount" = 4 Uint32;
    }
    LINK {
        "traceId" = 1 Id;
        "spanId" = 2 Id;
        "traceState" = 3 Text;
        "attributes" = 4 Messages(&KEY_VALUE);
        "droppedAttributesCount" = 5 Uint32;
        "flags" = 6 Fixed32;
    }
    STATUS { "message" = 2 Text; "code" = 3 Enum; }
    KEY_VALUE { "key" = 1 Text; "value" = 2 Message(&ANY_VALUE); "keyStrindex" = 3 Int32; }
    ANY_VALUE oneof {
        "stringValue" = 1 Text;
        "boolValue" = 2 Bool;
        "intValue" = 3 Int64;
        "doubleValue" = 4 Double;
        "arrayValue" = 5 Message(&ARRAY);
        "kvlistValue" = 6 Message(&KEY_VALUE_LIST);
        "bytesValue" = 7 Bytes;
        "stringValueStrindex" = 8 Int32;
    }
    ARRAY { "values" = 1 Messages(&ANY_VALUE); }
    KEY_VALUE_LIST { "values" = 1 Messages(&KEY_VALUE); }
}
