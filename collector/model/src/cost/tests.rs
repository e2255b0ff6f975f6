//! What costs promise.

use proptest::prelude::*;

use super::*;

fn prices() -> Prices {
    Prices::from_json(&serde_json::json!({
        "currency": "USD",
        "model": [
            { "name": "gpt-4o", "input": "2.50", "cached_input": "1.25", "output": 10 },
            { "name": "gpt-4o-2024-05-13", "input": "5", "output": "15" },
            { "name": "Thinker", "names": ["thinker-2"], "input": "1", "output": "2", "reasoning": "3", "cache_write": "1.25",
              "audio_input": "10", "audio_output": "20" },
        ],
    }))
    .unwrap()
}

fn usage(prompt: i64, completion: i64) -> Usage {
    Usage { prompt: Some(prompt), completion: Some(completion), ..Usage::default() }
}

fn total(model: &str, usage: Usage) -> Option<String> {
    Some(prices().cost(model, &usage)?.total()?.to_string())
}

#[test]
fn costs_are_those_that_phoenix_shows() {
    assert_eq!(total("gpt-4o", usage(100, 50)).unwrap(), "0.00075");
    assert_eq!(total("gpt-4o", Usage { cache_read: Some(40), ..usage(100, 50) }).unwrap(), "0.0007");
    assert_eq!(total("gpt-4o-2024-08-06", Usage { cache_read: Some(2), ..usage(18, 6) }).unwrap(), "0.0001025");
    assert_eq!(total("gpt-4o-2024-05-13", usage(1, 1)).unwrap(), "0.00002");
    // What the total holds beyond both is priced as output.
    assert_eq!(total("gpt-4o", Usage { total: Some(200), ..usage(100, 50) }).unwrap(), "0.00125");
}

#[test]
fn each_class_has_its_price() {
    let all = Usage {
        cache_read: Some(100),
        cache_write: Some(200),
        audio_input: Some(300),
        reasoning: Some(400),
        audio_output: Some(500),
        ..usage(1_000, 1_000)
    };
    let cost = prices().cost("thinker", &all).unwrap();
    assert_eq!(cost.input, Decimal::new((400 + 100) * 100 + 200 * 125 + 300 * 1_000, 8));
    assert_eq!(cost.output, Decimal::new(100 * 2 + 400 * 3 + 500 * 20, 6));
}

#[test]
fn what_is_not_known_has_no_cost() {
    for model in ["gpt-4o-slow", "gpt-4o-err-429", "gpt", "", "unknown"] {
        assert_eq!(total(model, usage(1, 1)), None, "{model}");
    }
    assert_eq!(total("gpt-4o", Usage::default()), None);
    assert_eq!(total("gpt-4o", Usage { total: Some(5), ..Usage::default() }), None);
    assert_eq!(total("gpt-4o", usage(0, 0)).unwrap(), "0");
}

/// Anthropic's API counts cached tokens beside the prompt; where that can be told, it is mended.
#[test]
fn cached_tokens_beside_the_prompt_are_added_to_it() {
    let beside = Usage { cache_read: Some(90), cache_write: Some(5), ..usage(10, 7) };
    assert_eq!(beside.sums(), (105, 7, 112));
    assert!(beside.cache_is_beside_prompt());
    let told_by_total = Usage { cache_read: Some(3), total: Some(20), ..usage(10, 7) };
    assert_eq!(told_by_total.sums(), (13, 7, 20));
    let within = Usage { cache_read: Some(3), total: Some(17), ..usage(10, 7) };
    assert_eq!(within.sums(), (10, 7, 17));
    assert!(!within.cache_is_beside_prompt());
}

#[test]
fn a_missing_count_is_derived() {
    assert_eq!(Usage { prompt: Some(18), total: Some(24), ..Usage::default() }.sums(), (18, 6, 24));
    assert_eq!(Usage { completion: Some(6), total: Some(24), ..Usage::default() }.sums(), (18, 6, 24));
    assert_eq!(Usage { total: Some(24), ..Usage::default() }.sums(), (0, 0, 24));
    assert_eq!(Usage { total: Some(0), ..usage(18, 6) }.sums(), (18, 6, 24));
}

fn count() -> impl Strategy<Value = Option<i64>> {
    prop::option::of(prop_oneof![0..1_000i64, 0..=i64::MAX, Just(i64::MAX)])
}

proptest! {
    #[test]
    fn classes_sum_to_the_total(
        (prompt, completion, total, cache_read) in (count(), count(), count(), count()),
        (cache_write, audio_input, reasoning, audio_output) in (count(), count(), count(), count()),
    ) {
        let usage = Usage { prompt, completion, total, cache_read, cache_write, audio_input, reasoning, audio_output };
        let (prompt, completion, total) = usage.sums();
        prop_assert!(prompt >= 0 && completion >= 0 && total >= prompt.saturating_add(completion));
        if let Some(Classes { fresh, cached, cache_write, audio_input, text, reasoning, audio_output }) = usage.classes() {
            let classes = [fresh, cached, cache_write, audio_input, text, reasoning, audio_output];
            prop_assert!(classes.iter().all(|&class| class >= 0));
            prop_assert_eq!(classes.iter().map(|&class| i128::from(class)).sum::<i128>(), i128::from(total));
        }
        let cost = prices().cost("thinker", &usage);
        prop_assert_eq!(cost.is_some(), usage.classes().is_some());
    }
}

#[test]
fn a_bad_table_is_refused_with_its_place() {
    let refused = |table: Value| Prices::from_json(&table).unwrap_err().0;
    let model = |model: Value| refused(serde_json::json!({ "model": [model] }));
    assert_eq!(refused(serde_json::json!([])), "it is not a table");
    assert_eq!(refused(serde_json::json!({ "models": [] })), "unknown key \"models\"");
    assert_eq!(refused(serde_json::json!({ "currency": "dollars" })), "currency is not a three-letter code");
    assert_eq!(model(serde_json::json!({ "input": "1" })), "a model has no name");
    assert_eq!(model(serde_json::json!({ "name": "a", "input": "1" })), "\"a\" has no output");
    assert_eq!(model(serde_json::json!({ "name": "a", "inputs": "1" })), "unknown key \"inputs\" of \"a\"");
    for bad in ["-1", "x", "NaN", "5001", "0.0000001", ""] {
        assert!(
            model(serde_json::json!({ "name": "a", "input": bad, "output": "1" })).starts_with("input of"),
            "{bad}"
        );
    }
    let twice = serde_json::json!({ "name": "a", "names": ["A"], "input": "1", "output": "1" });
    assert_eq!(model(twice), "\"a\" is there twice");
}
