//! One outcome for each example, whatever an evaluator does; identities; classes.

use emberd_evaluators_kit::{
    Class, Description, Direction, Evaluator, Example, Failure, Identity, Outcome, Score, collect,
};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use serde_json::json;

use crate::{at_once, built, class, example};

/// Answers with whatever it was given.
struct Rude {
    description: Description,
    identity: Identity,
    answers: Vec<(usize, Outcome)>,
}

impl Evaluator for Rude {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn evaluate<'a>(&'a self, _: &'a [Example]) -> BoxStream<'a, (usize, Outcome)> {
        stream::iter(self.answers.clone()).boxed()
    }
}

fn scored(value: f64) -> Outcome {
    Ok(vec![Score::number("x", value, Direction::Maximize)]).into()
}

/// Answers for no example, second answers and missing ones cost the examples concerned, and nobody else.
#[test]
fn every_example_gets_one_outcome() {
    let like = built("exact_match", json!({}));
    let answers = vec![(7, scored(0.1)), (2, scored(0.2)), (2, scored(0.3)), (0, scored(0.4))];
    let rude = Rude { description: like.describe().clone(), identity: like.identity().clone(), answers };
    let outcomes = at_once(collect(&rude, &vec![Example::default(); 3]));
    assert_eq!(outcomes.len(), 3);
    assert_eq!(outcomes[0], scored(0.4));
    assert_eq!(class(&outcomes[1]), Class::PluginFault);
    assert_eq!(outcomes[2], scored(0.2), "the first answer counts");
}

/// A batch through the trait is what each example gives by itself, in order.
#[test]
fn a_batch_is_its_examples() {
    let evaluator = built("contains", json!({"words": ["x"]}));
    let batch = [example(json!({"output": "x"})), example(json!({})), example(json!({"output": "y"}))];
    let outcomes = at_once(collect(&evaluator, &batch));
    let alone: Vec<Outcome> = batch.iter().map(|example| evaluator.run(example)).collect();
    assert_eq!(outcomes, alone);
    assert_eq!(class(&outcomes[1]), Class::MissingField);
}

/// What a foreign evaluator declares is what its scores are held against.
#[test]
fn scores_are_held_against_their_declaration() {
    let description = built("exact_match", json!({})).describe().clone();
    let named = |value: f64| Score::number("exact_match", value, Direction::Maximize);
    let check = |scores: Vec<Score>| Outcome::from(Ok(scores)).checked(&description);
    assert!(check(vec![named(1.0).label("true")]).result.is_ok());
    let wrong = [
        vec![],
        vec![named(1.5)],
        vec![named(-0.1)],
        vec![named(f64::NAN)],
        vec![named(f64::INFINITY)],
        vec![named(1.0).label("maybe")],
        vec![named(1.0), named(0.0)],
        vec![Score { value: None, ..named(0.0) }],
    ];
    for scores in wrong {
        assert_eq!(class(&check(scores.clone())), Class::PluginFault, "{scores:?}");
    }
}

/// Other configuration, mapping or version: another identity. The order of keys: the same.
#[test]
fn an_identity_is_name_version_and_configuration() {
    let of = |config: serde_json::Value| built("regex", config).identity().clone();
    let one = of(json!({"pattern": "a", "full_match": true}));
    assert_eq!(one, of(serde_json::from_str(r#"{"full_match": true, "pattern": "a"}"#).unwrap()));
    assert_ne!(one, of(json!({"pattern": "b", "full_match": true})));
    let mut mapped = crate::spec("regex", json!({"pattern": "a", "full_match": true}));
    mapped.mapping.insert("output".into(), emberd_evaluators_kit::Place::One("input".into()));
    assert_ne!(one, emberd_evaluators_kit::build(&mapped).unwrap().identity().clone());
    assert_eq!(one.to_string(), format!("regex@1+{}", one.digest));
    assert_ne!(Identity::new("a", "1", &[]), Identity::new("a", "2", &[]));
    // Pinned: a digest that changes by itself would pay for every judgement again.
    assert_eq!(
        Identity::new("a", "1", &[&json!({"b": [1, 2.5, null], "a": "x"})]).digest,
        "6c3ac70b2b4cc3608912859f8eea5604"
    );
}

/// Names are read back, and serde writes the same ones.
#[test]
fn classes_have_names() {
    for class in Class::ALL {
        assert_eq!(Class::from_name(class.name()), Some(class));
        assert_eq!(json!(class), json!(class.name()));
    }
    assert_eq!(Class::from_name("other"), None);
}

/// Messages and explanations are cut, at a character's border.
#[test]
fn texts_are_bounded() {
    let failure = Failure::new(Class::Parse, "ä".repeat(5000));
    assert!(failure.message.len() <= 1024 && failure.message.ends_with('ä'));
    let score = Score::number("x", 1.0, Direction::Maximize).because("ä".repeat(20_000));
    assert!(score.explanation.unwrap().len() <= 16 << 10);
}
