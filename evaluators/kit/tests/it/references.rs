//! Agreement with the Python packages on the same inputs: `tests/references/make.py` computes them, this holds emberd against each.
//!
//! Tolerance: 1e-9 absolute (1e-9 relative for statistics far from 1). Every case counts; where the packages disagree with each other,
//! `make.py` says so.

use emberd_evaluators_kit::stats::paired::{holm, mcnemar, paired_t, wilcoxon};
use emberd_evaluators_kit::stats::special;
use emberd_evaluators_kit::stats::summary::{deviation, mean, percentiles, student, wilson};
use emberd_evaluators_kit::{Example, Score, Spec, build};
use serde_json::{Map, Value, json};

fn references() -> Value {
    serde_json::from_str(include_str!("../references/references.json")).unwrap()
}

fn scores(name: &str, config: Value, output: &Value, reference: &Value) -> Vec<Score> {
    let Value::Object(config) = config else { panic!("a config is an object") };
    let spec = Spec { name: name.to_owned(), config, ..Spec::default() };
    let example =
        Example { output: output.clone(), reference: reference.clone(), metadata: Map::new(), ..Example::default() };
    build(&spec)
        .unwrap()
        .run(&example)
        .result
        .unwrap_or_else(|failure| panic!("{name}: {failure} on {output} {reference}"))
}

fn score(name: &str, config: Value, output: &Value, reference: &Value) -> f64 {
    scores(name, config, output, reference)[0].value.unwrap()
}

#[track_caller]
fn near(ours: f64, theirs: &Value, what: &dyn std::fmt::Display) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= 1e-9 * f64::max(1.0, theirs.abs()), "{what}: {ours}, they say {theirs}");
}

fn cases(of: &Value, at_least: usize) -> &[Value] {
    let cases = of.as_array().unwrap();
    assert!(cases.len() >= at_least, "only {} cases", cases.len());
    cases
}

/// rouge-score, sacrebleu, Levenshtein, rapidfuzz and phoenix-evals' exact_match say the same about each pair of texts.
#[test]
fn texts_score_as_in_the_python_packages() {
    for case in cases(&references()["texts"], 250) {
        let (output, reference) = (&case["output"], &case["reference"]);
        let of = |name: &str, config: Value| score(name, config, output, reference);
        let what = format!("{output} / {reference}");
        for (at, measure) in ["precision", "recall", "f"].into_iter().enumerate() {
            near(
                of("rouge_l", json!({"measure": measure})),
                &case["rouge_l"][at],
                &format!("rouge_l {measure} {what}"),
            );
        }
        near(of("bleu", json!({})), &case["bleu"], &format!("bleu {what}"));
        near(of("bleu", json!({"lowercase": true})), &case["bleu_lower"], &format!("bleu, lower case {what}"));
        for measure in ["ratio", "similarity", "distance"] {
            near(of("levenshtein", json!({"measure": measure})), &case[measure], &format!("{measure} {what}"));
        }
        near(of("exact_match", json!({})), &case["exact_match"], &format!("exact_match {what}"));
    }
}

/// phoenix-evals' MatchesRegex says the same, and counts as many matches.
#[test]
fn patterns_match_as_in_phoenix_evals() {
    for case in cases(&references()["regex"], 100) {
        let scores = scores("regex", json!({"pattern": case["pattern"]}), &case["output"], &Value::Null);
        near(scores[0].value.unwrap(), &case["score"], case);
        let count = case["count"].as_u64().unwrap();
        let said = if count == 0 { "nothing matches".to_owned() } else { format!("matches: {count}") };
        assert_eq!(scores[0].explanation.as_deref(), Some(&*said), "{case}");
    }
}

/// phoenix-evals' PrecisionRecallFScore gives the same three scores under the same names, and scikit-learn the same numbers.
#[test]
fn labels_score_as_in_phoenix_evals_and_scikit_learn() {
    let mut with_sklearn = 0;
    for case in cases(&references()["labels"], 200) {
        let scores = scores("precision_recall_f", case["config"].clone(), &case["output"], &case["reference"]);
        assert_eq!(scores.len(), 3);
        for (at, score) in scores.iter().enumerate() {
            assert_eq!(score.name, case["phoenix"][at][0].as_str().unwrap(), "{case}");
            near(score.value.unwrap(), &case["phoenix"][at][1], case);
            if let Some(theirs) = case["sklearn"].as_array() {
                near(score.value.unwrap(), &theirs[at], case);
                with_sklearn += 1;
            }
        }
    }
    assert!(with_sklearn > 200, "only {with_sklearn} numbers were held against scikit-learn");
}

/// Phoenix's server counts as many differences between two JSON texts.
#[test]
fn json_differs_as_in_phoenix() {
    for case in cases(&references()["json"], 100) {
        near(score("json_distance", json!({}), &case["output"], &case["reference"]), &case["distance"], case);
    }
}

/// Python's jsonschema takes the same values for valid.
#[test]
fn schemas_hold_as_in_python() {
    for case in cases(&references()["schemas"], 150) {
        let ours = score("json_schema", json!({"schema": case["schema"]}), &case["output"], &Value::Null);
        assert_eq!(ours == 1.0, case["valid"].as_bool().unwrap(), "{case}");
    }
}

fn numbers(of: &Value) -> Vec<f64> {
    of.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

/// scipy, numpy and statsmodels give the same means, intervals, percentiles and tail probabilities.
#[test]
fn summaries_are_those_of_scipy_and_statsmodels() {
    let references = references();
    let statistics = &references["statistics"];
    for case in cases(&statistics["summaries"], 30) {
        let mut values = numbers(&case["values"]);
        let level = case["level"].as_f64().unwrap();
        near(mean(&values).unwrap(), &case["mean"], case);
        near(deviation(&values).unwrap(), &case["sd"], case);
        let interval = student(&values, level).unwrap();
        near(interval.low, &case["student"][0], case);
        near(interval.high, &case["student"][1], case);
        let found = percentiles(&mut values).unwrap();
        for (at, value) in [found.p50, found.p90, found.p99].into_iter().enumerate() {
            near(value, &case["percentiles"][at], case);
        }
    }
    for case in cases(&statistics["wilson"], 15) {
        let number = |key: &str| case[key].as_f64().unwrap();
        let interval = wilson(number("passed"), number("of"), number("level"));
        near(interval.low, &case["interval"][0], case);
        near(interval.high, &case["interval"][1], case);
    }
    let special = &statistics["special"];
    let one = |name: &str, f: fn(f64) -> f64| {
        for case in cases(&special[name], 5) {
            near(f(case[0].as_f64().unwrap()), &case[1], &format!("{name} {case}"));
        }
    };
    one("normal_cdf", special::normal_cdf);
    one("normal_quantile", special::normal_quantile);
    one("chi_squared_1_sf", special::chi_squared_1_sf);
    let two = |name: &str, f: fn(f64, f64) -> f64| {
        for case in cases(&special[name], 10) {
            near(f(case[0].as_f64().unwrap(), case[1].as_f64().unwrap()), &case[2], &format!("{name} {case}"));
        }
    };
    two("t_two_sided", special::t_two_sided);
    two("t_critical", special::t_critical);
}

/// scipy and statsmodels give the same p-values for pairs, and the same correction for many.
#[test]
fn tests_of_pairs_are_those_of_scipy_and_statsmodels() {
    let references = references();
    let statistics = &references["statistics"];
    let mut exact = 0;
    for case in cases(&statistics["paired"], 40) {
        let (a, b) = (numbers(&case["a"]), numbers(&case["b"]));
        let differences = emberd_evaluators_kit::stats::paired::differences(&a, &b);
        near(wilcoxon(&differences), &case["wilcoxon"], case);
        exact += usize::from(case["is_exact"] == json!(true));
        if !case["t"].is_null() {
            near(paired_t(&differences).unwrap(), &case["t"], case);
        }
    }
    assert!(exact >= 5, "only {exact} cases of the exact distribution");
    for case in cases(&statistics["holm"], 20) {
        for (ours, theirs) in holm(&numbers(&case["p"])).into_iter().zip(case["adjusted"].as_array().unwrap()) {
            near(ours, theirs, case);
        }
    }
    for case in cases(&statistics["mcnemar"], 7) {
        near(mcnemar(case["only_a"].as_u64().unwrap(), case["only_b"].as_u64().unwrap()), &case["p"], case);
    }
}
