//! What Phoenix's charts need to know of a score's name: its annotation config.
//!
//! Promise: before the first score of a name is told, Phoenix has a config of that name: the labels with their scores where a model chooses
//! among labels, else the bounds of the number; and which way is better. One that is there stays as it is. It is for charts only: what
//! cannot be described is told all the same.
//! Kept by: `tests/outbox.rs`.

use std::sync::PoisonError;

use emberd_evaluators_kit::Direction;
use emberd_evaluators_kit::judge::{Judge, Template};
use emberd_phoenix::configs::{self, Values};
use emberd_phoenix::rest;
use serde::Deserialize as _;
use uuid::Uuid;

use super::Inner;
use crate::plan::{By, Planned, PlannedScore};

/// Names that are kept; beyond that all are forgotten, and Phoenix is asked again.
const NAMES_KEPT: usize = 10_000;

impl Inner {
    /// Sees to it that Phoenix has a config of each score's name.
    pub(super) async fn describe(&self, evaluators: &[Planned]) {
        for planned in evaluators {
            for score in &planned.scores {
                if self.is_described(&score.name) {
                    continue;
                }
                match self.client.make_annotation_config(&config(planned, score)).await {
                    Ok(_) => self.remember(&score.name),
                    // Phoenix is away: with the next score.
                    Err(rest::Error::Phoenix(_)) => return,
                    Err(error) => {
                        tracing::info!(name = %score.name, %error, "phoenix takes no config of a score's name");
                        self.remember(&score.name);
                    }
                }
            }
        }
    }

    /// The same for a score by a rule: the row's key begins with the rule's id.
    pub(super) async fn describe_of_rule(&self, key: &str, name: &str) {
        if self.is_described(name) {
            return;
        }
        let id = key.split('/').next().and_then(|id| id.parse::<Uuid>().ok());
        let rule = match id {
            Some(id) => self.store.rule(id).await.ok().flatten(),
            None => None,
        };
        let planned = rule.and_then(|rule| Vec::<Planned>::deserialize(rule.config.get("plan")?).ok());
        match planned {
            Some(planned) => self.describe(&planned).await,
            // A rule that is gone: nobody knows any more.
            None => self.remember(name),
        }
    }

    fn is_described(&self, name: &str) -> bool {
        self.described.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    fn remember(&self, name: &str) {
        let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        if described.len() >= NAMES_KEPT {
            described.clear();
        }
        described.insert(name.to_owned());
    }
}

fn config(planned: &Planned, score: &PlannedScore) -> configs::Config {
    let choices = choices(planned);
    configs::Config {
        name: score.name.clone(),
        direction: match score.direction {
            Direction::Maximize => configs::Direction::Maximize,
            Direction::Minimize => configs::Direction::Minimize,
            Direction::Neutral => configs::Direction::None,
        },
        values: match choices {
            Some(choices) => Values::Categorical(choices),
            None => Values::Continuous { low: score.min, high: score.max },
        },
    }
}

/// The labels that a judge may answer, with what each is worth.
fn choices(planned: &Planned) -> Option<Vec<(String, Option<f64>)>> {
    let By::Judge { template, .. } = &planned.by else { return None };
    let judge = match template {
        None => Judge::shipped(&planned.spec).ok()?,
        Some(text) => Judge::new(Template::from_json(text).ok()?, &planned.spec.config, &planned.spec.mapping).ok()?,
    };
    Some(judge.choices()?.iter().map(|choice| (choice.label.clone(), choice.score)).collect())
}

#[cfg(test)]
mod tests {
    use emberd_evaluators_kit::{Kind, Spec};

    use super::*;

    fn planned(spec: &str, by: By) -> Planned {
        let spec: Spec = serde_json::from_str(spec).unwrap();
        let score = PlannedScore {
            output: spec.name.clone(),
            name: "mine".into(),
            direction: Direction::Minimize,
            min: Some(0.0),
            max: None,
        };
        Planned { spec, by, version: "1".into(), digest: String::new(), kind: Kind::Llm, scores: vec![score] }
    }

    /// Labels with their scores where there are labels, as the job configures them; else the number's bounds.
    #[test]
    fn a_name_is_described_by_its_labels_or_its_bounds() {
        let judge = || By::Judge { model: "m".into(), template: None };
        let of = |spec: &str, by: By| {
            let planned = planned(spec, by);
            config(&planned, &planned.scores[0])
        };
        let shipped = of(r#"{"name": "hallucination"}"#, judge());
        let Values::Categorical(labels) = &shipped.values else { panic!("{shipped:?}") };
        assert_eq!((shipped.name.as_str(), shipped.direction), ("mine", configs::Direction::Minimize));
        assert!(labels.len() == 2 && labels.iter().all(|(_, score)| score.is_some()), "{labels:?}");
        let rubric = r#"{"name": "custom_rubric", "config": {"rubric": "r", "choices": {"a": 1, "b": null}}}"#;
        let rubric = of(rubric, judge());
        assert_eq!(rubric.values, Values::Categorical(vec![("a".into(), Some(1.0)), ("b".into(), None)]));
        let bounds = Values::Continuous { low: Some(0.0), high: None };
        assert_eq!(of(r#"{"name": "regex"}"#, By::Code).values, bounds);
    }
}
