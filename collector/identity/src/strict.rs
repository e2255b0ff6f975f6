//! JSON objects in which no name stands twice: two readers of one token must not read two tokens.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

/// An object's members. Inside a member's value, the last of equal names counts, as nothing in there is asked for by name twice.
#[derive(Debug, Default)]
pub(crate) struct Object(BTreeMap<String, Value>);

impl Object {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// A text that may be absent; `Err` if it is something else, empty or longer than so many bytes.
    pub(crate) fn text(&mut self, name: &str, bytes_max: usize) -> Result<Option<String>, ()> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.is_empty() && text.len() <= bytes_max && !text.contains('\0') => {
                Ok(Some(text))
            }
            Some(_) => Err(()),
        }
    }

    /// A time in whole or broken seconds since 1970 that may be absent; `Err` if it is something else, negative, or beyond the year 9999.
    pub(crate) fn seconds(&mut self, name: &str) -> Result<Option<i64>, ()> {
        const LAST: f64 = 253_402_300_799.0;
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_f64() {
                Some(seconds) if (0.0..=LAST).contains(&seconds) => Ok(Some(seconds as i64)),
                _ => Err(()),
            },
            Some(_) => Err(()),
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands twice"));
                    }
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
