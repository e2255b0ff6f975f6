//! The same contract in protobuf: what is sent, and what is believed.

use std::time::Duration;

use emberd_evaluators_kit::{Class, Description, Direction, Evaluator as _, Mapping, wire};
use emberd_proto::evaluator::v1 as proto;
use serde_json::json;

use crate::{built, class, example, only};

fn described() -> Description {
    wire::description(proto::Description {
        name: "toxicity".into(),
        version: "3.9.4".into(),
        kind: proto::Kind::Llm.into(),
        fields: vec![
            proto::Field {
                name: "text".into(),
                required: true,
                paths: vec!["output".into()],
                ..proto::Field::default()
            },
            proto::Field { name: "input".into(), ..proto::Field::default() },
        ],
        outputs: vec![proto::Output {
            name: "toxicity".into(),
            direction: proto::Direction::Minimize.into(),
            min: Some(0.0),
            max: Some(1.0),
            labels: vec!["toxic".into(), "non-toxic".into()],
        }],
        config: vec![proto::ConfigKey {
            name: "model".into(),
            default_json: Some("\"m\"".into()),
            ..proto::ConfigKey::default()
        }],
        ..proto::Description::default()
    })
    .unwrap()
}

fn answered(outcome: proto::result::Outcome) -> proto::Result {
    proto::Result { id: 1, outcome: Some(outcome), cost: None }
}

fn score() -> proto::Score {
    proto::Score {
        name: "toxicity".into(),
        score: Some(1.0),
        label: Some("toxic".into()),
        explanation: Some("e".into()),
        ..proto::Score::default()
    }
}

fn scores(scores: Vec<proto::Score>) -> proto::Result {
    answered(proto::result::Outcome::Scores(proto::Scores { scores }))
}

#[test]
fn a_described_plugin_is_sent_its_fields() {
    let description = described();
    assert_eq!(description.outputs[0].direction, Direction::Minimize);
    assert_eq!(description.config[0].default, Some(json!("m")));
    let mapping = Mapping::new(&description.fields, &Default::default(), 1000).unwrap();
    let sent = wire::example(7, &description, &mapping, &example(json!({"output": "a\"b", "context": "c"}))).unwrap();
    assert_eq!(sent.id, 7);
    assert_eq!(
        sent.fields_json,
        [("text".to_owned(), "\"a\\\"b\"".to_owned())].into(),
        "what is not there is not sent"
    );
    assert!(sent.example_json.is_empty());
    let failure = wire::example(7, &description, &mapping, &example(json!({}))).unwrap_err();
    assert_eq!(failure.class, Class::MissingField);
}

/// A plugin without described fields maps by itself: it gets the whole example, in the form that an example has everywhere.
#[test]
fn an_undescribed_plugin_is_sent_the_whole() {
    let mut description = described();
    description.fields.clear();
    let mapping = Mapping::new(&[], &Default::default(), 1000).unwrap();
    let whole =
        example(json!({"input": {"q": 1}, "output": "o", "metadata": {"x": 1}, "trace": {"spans": [{"kind": "LLM"}]}}));
    let sent = wire::example(1, &description, &mapping, &whole).unwrap();
    assert_eq!(serde_json::from_str::<emberd_evaluators_kit::Example>(&sent.example_json).unwrap(), whole);
}

#[test]
fn a_good_answer_is_taken() {
    let mut result = scores(vec![proto::Score { metadata_json: "{\"model\": \"m\"}".into(), ..score() }]);
    result.cost = Some(proto::Cost { prompt_tokens: 3, usd: Some(f64::NAN), ..proto::Cost::default() });
    let outcome = wire::outcome(result, &described());
    assert_eq!(outcome.cost.as_ref().unwrap().usd, None);
    let score = only(outcome);
    assert_eq!((score.value, score.direction), (Some(1.0), Direction::Minimize), "the direction is the declared one");
    assert_eq!(score.metadata["model"], "m");
}

/// Rubbish costs the example a failure, and never a score.
#[test]
fn rubbish_is_not_believed() {
    let score_with = |change: fn(&mut proto::Score)| {
        let mut changed = score();
        change(&mut changed);
        scores(vec![changed])
    };
    let rows = [
        proto::Result::default(),
        scores(vec![]),
        scores(vec![score(), score()]),
        scores(vec![score(); 1000]),
        score_with(|score| score.score = Some(f64::NAN)),
        score_with(|score| score.score = Some(f64::INFINITY)),
        score_with(|score| score.score = Some(1e308)),
        score_with(|score| score.label = Some("fine".into())),
        score_with(|score| (score.score, score.label) = (None, None)),
        score_with(|score| score.name = String::new()),
        score_with(|score| score.name = "undeclared, and without a direction".into()),
        score_with(|score| score.direction = proto::Direction::Maximize.into()),
        score_with(|score| score.metadata_json = "[1]".into()),
        score_with(|score| score.metadata_json = "{".into()),
        score_with(|score| score.metadata_json = format!("{{\"a\": \"{}\"}}", "x".repeat(100_000))),
        answered(proto::result::Outcome::Error(proto::Error { class: "made up".into(), ..proto::Error::default() })),
    ];
    for row in rows {
        let shown = format!("{row:?}");
        assert_eq!(class(&wire::outcome(row, &described())), Class::PluginFault, "{}", &shown[..shown.len().min(300)]);
    }
}

#[test]
fn a_plugins_error_keeps_its_class() {
    let error = proto::Error { class: "provider_rate".into(), message: "slow".into(), retry_after_ms: Some(1500) };
    let failure = wire::outcome(answered(proto::result::Outcome::Error(error)), &described()).result.unwrap_err();
    assert_eq!((failure.class, failure.retry_after), (Class::ProviderRate, Some(Duration::from_millis(1500))));
}

#[test]
fn descriptions_that_cannot_be_used_are_refused() {
    let good =
        || proto::Description { name: "x".into(), version: "1".into(), kind: 1, ..proto::Description::default() };
    assert!(wire::description(good()).is_ok());
    let rows: [fn(&mut proto::Description); 8] = [
        |sent| sent.name = "../x".into(),
        |sent| sent.name = String::new(),
        |sent| sent.version = String::new(),
        |sent| sent.kind = 0,
        |sent| sent.kind = 9,
        |sent| sent.fields = vec![proto::Field { name: "nowhere".into(), ..proto::Field::default() }],
        |sent| sent.outputs = vec![proto::Output { name: "x".into(), ..proto::Output::default() }],
        |sent| sent.config = vec![proto::ConfigKey::default(); 1000],
    ];
    for change in rows {
        let mut sent = good();
        change(&mut sent);
        assert!(wire::description(sent.clone()).is_err(), "{sent:?}");
    }
}

/// Every class that the `.proto` names is one, and it names them all.
#[test]
fn the_proto_file_names_the_classes() {
    let text = include_str!("../../../../proto/emberd/evaluator/v1/evaluator.proto");
    for class in Class::ALL {
        assert!(text.contains(class.name()), "{class}");
    }
    let _ = built("exact_match", json!({})).describe();
}
