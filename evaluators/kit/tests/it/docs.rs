//! `docs/evaluators.md` names every evaluator with its keys, classes and labels, and its examples can be built.

use emberd_evaluators_kit::judge::{Judge, Template};
use emberd_evaluators_kit::{Class, Kind, Spec, build, descriptions};

const DOCS: &str = include_str!("../../../../docs/evaluators.md");

/// What stands in fences of this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let opened = DOCS.split(&fence[..]).skip(1);
    opened.map(|rest| rest.split("\n```").next().unwrap()).collect()
}

#[test]
fn every_evaluator_has_its_row_with_its_keys() {
    for description in descriptions() {
        let name = format!("| `{}`", description.name);
        // The table of classes has a row `refusal` too.
        let evaluators = DOCS.split_once("\n# Built in\n").unwrap().1;
        let row = evaluators.lines().find(|line| line.starts_with(&name));
        let row = row.unwrap_or_else(|| panic!("{} has no row", description.name));
        if description.kind == Kind::Code {
            for key in &description.config {
                assert!(row.contains(&format!("`{}`", key.name)), "{}: key {} is not told", description.name, key.name);
            }
        } else {
            for label in &description.outputs[0].labels {
                assert!(row.contains(&format!("{label} ")), "{}: label {label} is not told", description.name);
            }
            for field in &description.fields {
                assert!(row.contains(&*field.name), "{}: field {} is not told", description.name, field.name);
            }
        }
    }
    for class in Class::ALL {
        assert!(DOCS.contains(&format!("`{class}`")), "class {class} is not told");
    }
}

#[test]
fn every_example_can_be_built() {
    let mut built = 0;
    for block in blocks("json") {
        for value in serde_json::Deserializer::from_str(block).into_iter::<serde_json::Value>() {
            let value = value.unwrap_or_else(|error| panic!("{error} in {block}"));
            let specs: Vec<Spec> = match value.get("evaluators") {
                Some(list) => serde_json::from_value(list.clone()).unwrap(),
                None if value.get("name").is_some() => vec![serde_json::from_value(value).unwrap()],
                None => {
                    let _: emberd_evaluators_kit::Example = serde_json::from_value(value).unwrap();
                    continue;
                }
            };
            for spec in specs {
                match emberd_evaluators_kit::spec::known(&spec.name).unwrap() {
                    emberd_evaluators_kit::spec::Is::Code => drop(build(&spec).unwrap()),
                    emberd_evaluators_kit::spec::Is::Judge => drop(Judge::shipped(&spec).unwrap()),
                }
                built += 1;
            }
        }
    }
    assert!(built > 12, "only {built} examples");
    for block in blocks("toml") {
        Template::from_toml(block).unwrap();
    }
}
