//! The tools that a run called: in the right order (`tool_sequence`), or the right calls with the right arguments (`tool_call_match`).
//!
//! `tool_sequence`, with A called and E expected names: `exact` A = E; `in_order` E is a subsequence of A; `any_order` A and E have the same
//! names as often; `superset` A has at least those of E.
//! `tool_call_match`: 2 x matched / (called + expected), each call matched once at most; both empty: 1. The greatest possible matching
//! (Kuhn), or the longest in order with `ordered`. Cap: 256 calls on each side.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Entry, FieldOf, PASS_FAIL, UNIT_UP, true_false, zero_one};
use crate::contract::{Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::read;

pub(super) const TOOL_CALLS: FieldOf = (
    "tool_calls",
    true,
    "What was called: names, {name, arguments} or OpenAI's {function: {name, arguments}}.",
    &["/metadata/tool_calls", "/output/tool_calls", "all(TOOL).tool_call"],
);
const EXPECTED: FieldOf = (
    "reference",
    true,
    "What should have been called, in the same forms.",
    &["/reference/tool_calls", "/metadata/expected_tool_calls", "reference"],
);

pub(super) const SEQUENCE: Entry = Entry {
    name: "tool_sequence",
    aliases: &[],
    version: "1",
    summary: "The tools were called in the expected order.",
    fields: &[TOOL_CALLS, EXPECTED],
    output: PASS_FAIL,
    config: &[("order", "\"exact\"", "exact, in_order, any_order or superset: see the formulas.")],
    build: |config, _| Ok(Box::new(read::<Sequence>(config)?)),
};

pub(super) const CALLS: Entry = Entry {
    name: "tool_call_match",
    aliases: &["tool_calls"],
    version: "1",
    summary: "The expected tools were called with the expected arguments.",
    fields: &[TOOL_CALLS, EXPECTED],
    output: UNIT_UP,
    config: &[
        ("arguments", "\"exact\"", "exact (equal JSON), subset (the expected keys are equal) or ignore."),
        ("ordered", "false", "The calls must be in the expected order."),
    ],
    build: |config, _| Ok(Box::new(read::<Calls>(config)?)),
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sequence {
    order: Order,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    #[default]
    Exact,
    #[serde(rename = "in_order")]
    Subsequence,
    #[serde(rename = "any_order")]
    SameNames,
    Superset,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Calls {
    arguments: Arguments,
    ordered: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Arguments {
    #[default]
    Exact,
    Subset,
    Ignore,
}

const CALLS_MAX: usize = 256;

/// A call, read out of the forms in which providers and instrumentations write it.
#[derive(Debug, PartialEq)]
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    pub(super) arguments: Cow<'a, Value>,
}

/// The calls in a field.
pub(super) fn calls<'a>(field: &str, value: &'a Value) -> Result<Vec<Call<'a>>, Failure> {
    let Value::Array(items) = value else { return Err(Failure::invalid(field, "a list of tool calls")) };
    if items.len() > CALLS_MAX {
        return Err(Failure::too_large(&format!("calls in {field}"), items.len(), CALLS_MAX));
    }
    items
        .iter()
        .map(|item| call(item).ok_or_else(|| Failure::invalid(field, "a list of tool calls with names")))
        .collect()
}

fn call(item: &Value) -> Option<Call<'_>> {
    if let Value::String(name) = item {
        return Some(Call { name, arguments: Cow::Owned(Value::Null) });
    }
    let item = item.get("tool_call").unwrap_or(item);
    let item = item.get("function").filter(|function| function.is_object()).unwrap_or(item);
    let arguments = ["arguments", "args", "input", "parameters"].iter().find_map(|key| item.get(*key));
    let arguments = match arguments {
        // A text that is no JSON stays a text: it equals nothing but itself.
        Some(Value::String(text)) => serde_json::from_str(text).map_or(Cow::Borrowed(arguments?), Cow::Owned),
        Some(value) => Cow::Borrowed(value),
        None => Cow::Owned(Value::Null),
    };
    Some(Call { name: item.get("name")?.as_str()?, arguments })
}

impl Code for Sequence {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let (called, expected) = (fields.value("tool_calls")?, fields.value("reference")?);
        let (called, expected) = (calls("tool_calls", &called)?, calls("reference", &expected)?);
        let passed = match self.order {
            Order::Exact => names(&called).eq(names(&expected)),
            Order::Subsequence => {
                let mut called = names(&called);
                names(&expected).all(|wanted| called.any(|name| name == wanted))
            }
            Order::SameNames => tally(&called) == tally(&expected),
            Order::Superset => {
                let called = tally(&called);
                tally(&expected)
                    .into_iter()
                    .all(|(name, count)| called.get(name).is_some_and(|called| *called >= count))
            }
        };
        let score = Score::number(SEQUENCE.name, zero_one(passed), Direction::Maximize).label(true_false(passed));
        let list = |calls: &[Call<'_>]| names(calls).collect::<Vec<_>>().join(", ");
        Ok(vec![if passed {
            score
        } else {
            score.because(format!("called: {}; expected: {}", list(&called), list(&expected)))
        }])
    }
}

fn names<'a>(calls: &'a [Call<'_>]) -> impl Iterator<Item = &'a str> {
    calls.iter().map(|call| call.name)
}

fn tally<'a>(calls: &'a [Call<'_>]) -> BTreeMap<&'a str, usize> {
    let mut tally = BTreeMap::new();
    for name in names(calls) {
        *tally.entry(name).or_insert(0) += 1;
    }
    tally
}

impl Code for Calls {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let (called, expected) = (fields.value("tool_calls")?, fields.value("reference")?);
        let (called, expected) = (calls("tool_calls", &called)?, calls("reference", &expected)?);
        let fits: Vec<Vec<bool>> =
            expected.iter().map(|wanted| called.iter().map(|call| self.fits(wanted, call)).collect()).collect();
        let matched = if self.ordered { longest_in_order(&fits) } else { greatest_matching(&fits, called.len()) };
        let of = called.len() + expected.len();
        let value = if of == 0 { 1.0 } else { 2.0 * matched as f64 / of as f64 };
        let because = format!("{matched} matched of {} called and {} expected", called.len(), expected.len());
        Ok(vec![Score::number(CALLS.name, value, Direction::Maximize).because(because)])
    }
}

impl Calls {
    fn fits(&self, wanted: &Call<'_>, call: &Call<'_>) -> bool {
        wanted.name == call.name
            && match self.arguments {
                Arguments::Ignore => true,
                Arguments::Exact => wanted.arguments == call.arguments,
                Arguments::Subset => covers(&call.arguments, &wanted.arguments),
            }
    }
}

/// `all` has every key that `part` has, with the same value, at every depth. Null asks for nothing.
fn covers(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (_, Value::Null) => true,
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(key, part)| all.get(key).is_some_and(|all| covers(all, part)))
        }
        (all, part) => all == part,
    }
}

/// The longest common subsequence under `fits[expected][called]`.
fn longest_in_order(fits: &[Vec<bool>]) -> usize {
    let width = fits.first().map_or(0, Vec::len);
    let mut above = vec![0; width + 1];
    for row in fits {
        let mut here = vec![0; width + 1];
        for (at, fits) in row.iter().enumerate() {
            here[at + 1] = if *fits { above[at] + 1 } else { usize::max(above[at + 1], here[at]) };
        }
        above = here;
    }
    above.last().copied().unwrap_or(0)
}

/// Kuhn's augmenting paths.
fn greatest_matching(fits: &[Vec<bool>], called: usize) -> usize {
    let mut taken_by: Vec<Option<usize>> = vec![None; called];
    (0..fits.len()).filter(|wanted| augment(*wanted, fits, &mut taken_by, &mut vec![false; called])).count()
}

/// As deep as there are expected calls at most.
fn augment(wanted: usize, fits: &[Vec<bool>], taken_by: &mut [Option<usize>], seen: &mut [bool]) -> bool {
    for call in 0..taken_by.len() {
        if !fits[wanted][call] || std::mem::replace(&mut seen[call], true) {
            continue;
        }
        let is_free = match taken_by[call] {
            None => true,
            Some(other) => augment(other, fits, taken_by, seen),
        };
        if is_free {
            taken_by[call] = Some(wanted);
            return true;
        }
    }
    false
}
