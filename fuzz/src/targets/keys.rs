//! The file of ingest keys.

use std::collections::BTreeSet;

use emberd_intake::Keys;
use emberd_intake::keys::BadKeys;

pub(super) fn seeds() -> Vec<Vec<u8>> {
    [
        "[[key]]\nname = \"shop\"\nkey = \"secret-1\"\nrate = 1000\nproject = \"p\"\n[[key]]\nname = \"b\"\nkey = \"secret-2\"\n",
        "[[key]]\nname = \"x\"\nsha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n",
        "key = []\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A text is keys, each with a name of its own, as many as it has entries; or it is refused with a reason.
pub(super) fn keys(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let table = toml::from_str::<toml::Table>(text);
    let entries = table.as_ref().ok().and_then(|table| table.get("key")?.as_array());
    match Keys::parse(text) {
        Ok(keys) => {
            let entries = entries.expect("what is read as keys is TOML");
            let names: BTreeSet<&str> = keys.names().map(|(name, _)| name).collect();
            assert_eq!((names.len(), keys.names().count()), (entries.len(), entries.len()));
            for (entry, (name, project)) in entries.iter().zip(keys.names()) {
                assert_eq!(entry["name"].as_str(), Some(name));
                assert_eq!(entry.get("project").and_then(|project| project.as_str()), project);
                assert!(entry.get("key").is_some() != entry.get("sha256").is_some());
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(matches!(error, BadKeys::Form(_)) || table.is_ok(), "not TOML, but: {error}");
            // What goes to the log is the error's words and not the line, which holds the key.
            if let BadKeys::Form(error) = error {
                let shown = error.message();
                let secrets = entries.into_iter().flatten().filter_map(|entry| entry.get("key")?.as_str());
                let leaked = secrets.into_iter().find(|secret| secret.len() > 12 && shown.contains(secret));
                assert!(leaked.is_none(), "the error shows the key {leaked:?}: {shown}");
            }
        }
    }
}
