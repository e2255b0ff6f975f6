//! docs/incidents.md names tests; they must be there.

use std::path::Path;

/// Each row of the table ends in the test that keeps it, as `path::name`; the file has a test of that name.
#[test]
fn every_incident_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/incidents.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains("::")).collect();
    let mut faults = Vec::new();
    for row in &rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
        for named in tests.split('`').filter(|part| part.contains("::")) {
            let (path, name) = named.split_once("::").unwrap();
            let source = std::fs::read_to_string(root.join("collector").join(path)).unwrap_or_default();
            if !is_test(&source, name) {
                faults.push(named);
            }
        }
    }
    assert_eq!(faults, Vec::<&str>::new(), "named in docs/incidents.md and not found");
    assert!(rows.len() >= 25, "only {} incidents", rows.len());
}

/// Whether `source` has a function of this name under a test attribute, or a test inside `proptest!`.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let declared = lines.iter().position(|line| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with(['(', '<']))
    });
    declared.is_some_and(|at| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        above.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}
