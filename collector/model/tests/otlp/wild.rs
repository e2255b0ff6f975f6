//! Generated requests as bytes, with all that the wire format allows and no encoder does: fields in any order and
//! repeated, messages in pieces, unknown fields, groups, lengths written too long; and now and then what it does not
//! allow.

use crate::choices::Choices;

enum Kind {
    Varint,
    Fixed32,
    Fixed64,
    Text,
    TraceId,
    SpanId,
    Bytes,
    Message(&'static Shape),
}

struct Shape(&'static [(u64, Kind)]);

static REQUEST: Shape = Shape(&[(1, Kind::Message(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Shape = Shape(&[
    (2, Kind::Message(&SCOPE_SPANS)),
    (1, Kind::Message(&RESOURCE)),
    (2, Kind::Message(&SCOPE_SPANS)),
    (3, Kind::Text),
]);
static RESOURCE: Shape = Shape(&[(1, Kind::Message(&PAIR)), (2, Kind::Varint), (3, Kind::Message(&ENTITY_REF))]);
static ENTITY_REF: Shape = Shape(&[(1, Kind::Text), (2, Kind::Text), (3, Kind::Text), (4, Kind::Text)]);
static SCOPE_SPANS: Shape =
    Shape(&[(2, Kind::Message(&SPAN)), (1, Kind::Message(&SCOPE)), (2, Kind::Message(&SPAN)), (3, Kind::Text)]);
static SCOPE: Shape = Shape(&[(1, Kind::Text), (2, Kind::Text), (3, Kind::Message(&PAIR)), (4, Kind::Varint)]);
static SPAN: Shape = Shape(&[
    (9, Kind::Message(&PAIR)),
    (9, Kind::Message(&PAIR)),
    (1, Kind::TraceId),
    (2, Kind::SpanId),
    (3, Kind::Text),
    (4, Kind::SpanId),
    (5, Kind::Text),
    (6, Kind::Varint),
    (7, Kind::Fixed64),
    (8, Kind::Fixed64),
    (10, Kind::Varint),
    (11, Kind::Message(&EVENT)),
    (12, Kind::Varint),
    (13, Kind::Message(&LINK)),
    (14, Kind::Varint),
    (15, Kind::Message(&STATUS)),
    (16, Kind::Fixed32),
]);
static STATUS: Shape = Shape(&[(2, Kind::Text), (3, Kind::Varint), (1, Kind::Varint)]);
static EVENT: Shape = Shape(&[(1, Kind::Fixed64), (2, Kind::Text), (3, Kind::Message(&PAIR)), (4, Kind::Varint)]);
static LINK: Shape = Shape(&[
    (1, Kind::TraceId),
    (2, Kind::Bytes),
    (3, Kind::Text),
    (4, Kind::Message(&PAIR)),
    (5, Kind::Varint),
    (6, Kind::Fixed32),
]);
static PAIR: Shape =
    Shape(&[(2, Kind::Message(&VALUE)), (1, Kind::Text), (2, Kind::Message(&VALUE)), (3, Kind::Varint)]);
static VALUE: Shape = Shape(&[
    (1, Kind::Text),
    (5, Kind::Message(&ARRAY)),
    (5, Kind::Message(&ARRAY)),
    (6, Kind::Message(&LIST)),
    (6, Kind::Message(&LIST)),
    (2, Kind::Varint),
    (3, Kind::Varint),
    (4, Kind::Fixed64),
    (7, Kind::Bytes),
    (8, Kind::Varint),
]);
static ARRAY: Shape = Shape(&[(1, Kind::Message(&VALUE))]);
static LIST: Shape = Shape(&[(1, Kind::Message(&PAIR))]);

pub(crate) fn request(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message(choices, &REQUEST, 0, &mut out);
    out
}

/// Messages inside each other; prost takes a hundred, of which a value 32 deep needs nearly all.
const DEPTH_MAX: u32 = 40;

fn message(choices: &mut Choices<'_>, shape: &'static Shape, depth: u32, out: &mut Vec<u8>) {
    if std::ptr::eq(shape, &SPAN) && !choices.once_in(16) {
        field(choices, 1, &Kind::TraceId, depth, out);
        field(choices, 2, &Kind::SpanId, depth, out);
    }
    for _ in 0..choices.below(5) {
        if choices.once_in(12) {
            strange(choices, out);
        } else if depth < DEPTH_MAX {
            let (number, kind) = &shape.0[choices.below(shape.0.len())];
            field(choices, *number, kind, depth, out);
        }
    }
}

fn field(choices: &mut Choices<'_>, number: u64, kind: &Kind, depth: u32, out: &mut Vec<u8>) {
    match kind {
        Kind::Varint => {
            key(choices, number, 0, out);
            let value = choices.number();
            varint(choices, value, out);
        }
        Kind::Fixed64 => {
            key(choices, number, 1, out);
            out.extend(choices.bytes::<8>());
        }
        Kind::Fixed32 => {
            key(choices, number, 5, out);
            out.extend(choices.bytes::<4>());
        }
        Kind::Text => {
            let mut text = choices.text().into_bytes();
            if choices.once_in(100) {
                text.push(0x80);
            }
            payload(choices, number, &text, out);
        }
        Kind::TraceId => id(choices, number, 16, out),
        Kind::SpanId => id(choices, number, 8, out),
        Kind::Bytes => {
            let bytes = choices.bytes::<5>();
            payload(choices, number, &bytes, out);
        }
        Kind::Message(shape) => {
            let mut inner = Vec::new();
            message(choices, shape, depth + 1, &mut inner);
            payload(choices, number, &inner, out);
        }
    }
}

fn id(choices: &mut Choices<'_>, number: u64, length: usize, out: &mut Vec<u8>) {
    let length = if choices.once_in(40) { choices.below(30) + 1 } else { length };
    let mut id = choices.id(length);
    if choices.once_in(60) {
        id.fill(0);
    }
    payload(choices, number, &id, out);
}

/// A field that no message knows, a group, or something that is not allowed.
fn strange(choices: &mut Choices<'_>, out: &mut Vec<u8>) {
    match choices.below(40) {
        0 => out.push(choices.byte()),
        1 => key(choices, 0, 2, out),
        2 => out.extend([0xff; 11]),
        3 => payload(choices, 6, b"kind", out),
        wire => {
            let number = [17, 18, 31, 32, 1000, (1 << 29) - 1][choices.below(6)];
            match wire % 5 {
                0 => field(choices, number, &Kind::Varint, DEPTH_MAX, out),
                1 => field(choices, number, &Kind::Fixed64, DEPTH_MAX, out),
                2 => field(choices, number, &Kind::Fixed32, DEPTH_MAX, out),
                3 => field(choices, number, &Kind::Text, DEPTH_MAX, out),
                _ => {
                    key(choices, number, 3, out);
                    field(choices, 1, &Kind::Varint, DEPTH_MAX, out);
                    if choices.once_in(3) {
                        strange(choices, out);
                    }
                    let number = if choices.once_in(30) { 1 } else { number };
                    key(choices, number, 4, out);
                }
            }
        }
    }
}

fn payload(choices: &mut Choices<'_>, number: u64, payload: &[u8], out: &mut Vec<u8>) {
    key(choices, number, 2, out);
    varint(choices, payload.len() as u64, out);
    out.extend_from_slice(payload);
}

fn key(choices: &mut Choices<'_>, number: u64, wire: u64, out: &mut Vec<u8>) {
    varint(choices, number << 3 | wire, out);
}

/// A varint, now and then longer than it needs be.
fn varint(choices: &mut Choices<'_>, mut value: u64, out: &mut Vec<u8>) {
    let longer = if choices.once_in(20) { choices.below(3) } else { 0 };
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    for _ in 0..longer {
        *out.last_mut().expect("a byte was pushed") |= 0x80;
        out.push(0);
    }
}
