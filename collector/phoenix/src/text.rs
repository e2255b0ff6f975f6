//! What Phoenix's database cannot hold: a NUL in a text, a number that is not finite.
//!
//! Promise: what goes out has no NUL in any value or key, on whichever database Phoenix runs, and the caller hears how many were
//! taken out. PostgreSQL refuses such a text with a 500; SQLite takes it, and would then differ.
//! Kept by: the tests below, and `tests/evaluation.rs` against the real Phoenix.

use serde_json::Value;

/// Takes the NULs out of every text and key of `value`; how many there were.
pub fn remove_nuls(value: &mut Value) -> usize {
    match value {
        Value::String(text) => remove_nuls_of(text),
        Value::Array(values) => values.iter_mut().map(remove_nuls).sum(),
        Value::Object(fields) => {
            let mut removed = fields.values_mut().map(remove_nuls).sum();
            if fields.keys().any(|key| key.contains('\0')) {
                let renamed = std::mem::take(fields).into_iter().map(|(mut key, value)| {
                    removed += remove_nuls_of(&mut key);
                    (key, value)
                });
                *fields = renamed.collect();
            }
            removed
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn remove_nuls_of(text: &mut String) -> usize {
    let before = text.len();
    if text.contains('\0') {
        text.retain(|char| char != '\0');
    }
    before - text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    /// However deep a NUL stands, it is gone and counted, and nothing else has changed.
    #[test]
    fn every_nul_is_taken_out_and_counted() {
        let mut value = json!({ "a\0": ["x\0y\0", { "b": "\0", "c": [1, null, true, "é"] }], "d": "" });
        assert_eq!(super::remove_nuls(&mut value), 4);
        assert_eq!(value, json!({ "a": ["xy", { "b": "", "c": [1, null, true, "é"] }], "d": "" }));
        assert_eq!(super::remove_nuls(&mut value), 0);
    }
}
