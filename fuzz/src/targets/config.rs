//! The configuration file and the environment above it.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::config::Config;

thread_local! {
    /// A directory for the file: it is read as the daemon reads it.
    static FOLDER: LazyCell<(tempfile::TempDir, PathBuf)> = LazyCell::new(|| {
        let folder = tempfile::tempdir().expect("a directory for temporary files");
        let path = folder.path().join("emberd.toml");
        (folder, path)
    });
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let documented = include_str!("../../../config/emberd.toml");
    let sections: Vec<String> = documented
        .split_inclusive('\n')
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split(" #").next().unwrap_or(line).trim_end().to_owned() + "\n")
        .collect();
    let short = sections.concat();
    let variables = "EMBERD_LOG_BUDGET=1GiB\nEMBERD__API__LISTEN=127.0.0.1:1\nPHOENIX_API_KEY=hidden-from-all-1\nDATABASE_URL=postgres://u:p@h/d\n";
    vec![
        short.clone().into_bytes(),
        format!("{short}[[forward]]\nname = \"a\"\nurl = \"grpc://h:4317\"\n\0{variables}").into_bytes(),
        b"[log]\nbudget = \"12XB\"\nbackend = 7\n[nothing]\n[intake\ngrpc = \n".to_vec(),
        b"[flags]\ntraces = { enabled = true, rollout = 101 }\n\0EMBERD_FORWARD=[{name='x',url='http://h/v1/traces'}]"
            .to_vec(),
    ]
}

/// A text is a configuration, the same each time, or everything that is wrong with it is said, each with a line of the file or the
/// variable, and the key; a secret is never shown.
pub(super) fn config(input: &[u8]) {
    let at = input.iter().position(|&byte| byte == 0).unwrap_or(input.len());
    let (text, rest) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let variables: Vec<(OsString, OsString)> = rest.split(|&byte| byte == b'\n').filter_map(variable).take(8).collect();
    let names: BTreeSet<&str> = variables.iter().filter_map(|(name, _)| name.to_str()).collect();
    let load = || {
        FOLDER.with(|folder| {
            fs::write(&folder.1, text).expect("the file is written");
            let loaded = Config::load_with(Some(&folder.1), variables.clone(), Some("data".into()));
            (folder.1.display().to_string(), loaded)
        })
    };
    let (path, loaded) = load();
    let lines = 1 + text.iter().filter(|&&byte| byte == b'\n').count();
    let shown = match &loaded {
        Ok(config) => {
            let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
            format!("{config:?}\n{}", warnings.join("\n"))
        }
        Err(errors) => {
            assert!(!errors.0.is_empty(), "refused without a reason");
            let is_toml = str::from_utf8(text).is_ok_and(|text| toml::from_str::<toml::Table>(text).is_ok());
            for fault in &errors.0 {
                let place = fault.place.to_string();
                let line = place.strip_prefix(&path).and_then(|place| place.strip_prefix(':')?.parse::<usize>().ok());
                let is_placed = line.is_some_and(|line| (1..=lines).contains(&line)) || names.contains(&place[..]);
                assert!(is_placed, "{fault}: of {lines} lines and {names:?}");
                assert!(!fault.message.is_empty() && !fault.to_string().contains('\n'), "{fault:?}");
                // A key is named wherever the file can be read as TOML; an unknown one in the message.
                let is_named = !fault.key.is_empty() || fault.message.starts_with("unknown ");
                assert!(is_named || !is_toml || names.contains(&place[..]), "{fault} names no key");
            }
            errors.to_string()
        }
    };
    for (name, value) in &variables {
        let is_secret = ["PHOENIX_API_KEY", "OPENAI_API_KEY", "SHARED_JWT_SECRET"].iter().any(|secret| name == secret);
        let value = value.to_str().filter(|value| is_secret && value.len() > 12);
        assert!(value.is_none_or(|value| !shown.contains(value)), "{name:?} is shown: {shown}");
    }
    let again = load().1;
    assert_eq!(format!("{loaded:?}"), format!("{again:?}"));
}

/// `NAME=value`.
fn variable(line: &[u8]) -> Option<(OsString, OsString)> {
    let at = line.iter().position(|&byte| byte == b'=')?;
    let name = &line[..at];
    (!name.is_empty())
        .then(|| (std::ffi::OsStr::from_bytes(name).into(), std::ffi::OsStr::from_bytes(&line[at + 1..]).into()))
}
