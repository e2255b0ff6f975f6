//! What a plugin is asked: a batch of examples, as requests of bounded size.
//!
//! Promise: an example that lacks a required field, or is larger than the evaluator bears, is not sent: it has its failure here and now.
//! Ids are places in the batch plus one. No request is larger than a message may be, or has more examples than the plugin takes.

use emberd_evaluators_kit::contract::Description;
use emberd_evaluators_kit::{Class, Example, Failure, Mapping, wire};
use emberd_proto::evaluator::v1 as pb;

/// Protobuf's own bytes around an example, at most: tags and lengths of it and its fields.
const OVERHEAD_BYTES: usize = 4 << 10;

/// How examples become requests.
#[derive(Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) evaluator: &'a str,
    pub(crate) config_json: &'a str,
    pub(crate) mapping: &'a Mapping,
    pub(crate) description: &'a Description,
    pub(crate) message_bytes: usize,
}

impl Shape<'_> {
    /// The wire's form of one example, or why it is not sent.
    pub(crate) fn example(&self, at: usize, example: &Example) -> Result<pb::Example, Failure> {
        let sent = wire::example(id_of(at), self.description, self.mapping, example)?;
        let most = |bytes: usize, max: usize, what: &str| match bytes > max {
            true => Err(Failure::new(Class::TooLarge, format!("bytes of {what}: {bytes}, at most {max}"))),
            false => Ok(()),
        };
        let field_bytes_max = usize::try_from(self.description.limits.field_bytes_max).unwrap_or(usize::MAX);
        for (name, text) in &sent.fields_json {
            most(text.len(), field_bytes_max, name)?;
        }
        let room = self.message_bytes.saturating_sub(OVERHEAD_BYTES + self.config_json.len());
        most(size_of(&sent), room, "the example")?;
        Ok(sent)
    }

    /// These examples in as few requests as there may be.
    pub(crate) fn requests(&self, examples: Vec<pb::Example>) -> Vec<pb::EvaluateRequest> {
        let mut requests: Vec<pb::EvaluateRequest> = Vec::new();
        let mut bytes = 0;
        for example in examples {
            let size = size_of(&example);
            match requests.last_mut() {
                Some(last)
                    if bytes + size <= self.message_bytes
                        && last.examples.len() < self.description.limits.batch_examples_max as usize =>
                {
                    bytes += size;
                    last.examples.push(example);
                }
                _ => {
                    bytes = OVERHEAD_BYTES + self.config_json.len() + size;
                    requests.push(pb::EvaluateRequest {
                        evaluator: self.evaluator.to_owned(),
                        config_json: self.config_json.to_owned(),
                        examples: vec![example],
                    });
                }
            }
        }
        requests
    }
}

fn size_of(example: &pb::Example) -> usize {
    let fields: usize = example.fields_json.iter().map(|(name, text)| name.len() + text.len() + 16).sum();
    32 + example.example_json.len() + fields
}

/// The id of the example at this place.
pub(crate) fn id_of(at: usize) -> u64 {
    at as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_in_examples_and_bytes() {
        let example = |bytes: usize| Example { input: "x".repeat(bytes).into(), ..Example::default() };
        let told = pb::Description { name: "x".into(), version: "1".into(), kind: 1, ..pb::Description::default() };
        let mut description = wire::description(told).unwrap();
        description.limits.batch_examples_max = 3;
        let mapping = Mapping::new(&[], &std::collections::BTreeMap::new(), usize::MAX).unwrap();
        let shape = Shape {
            evaluator: "x",
            config_json: "{}",
            mapping: &mapping,
            description: &description,
            message_bytes: 64 << 10,
        };
        let small: Vec<_> = (0..7).map(|at| shape.example(at, &example(10)).unwrap()).collect();
        let counts: Vec<_> = shape.requests(small).iter().map(|request| request.examples.len()).collect();
        assert_eq!(counts, [3, 3, 1]);
        let large: Vec<_> = (0..3).map(|at| shape.example(at, &example(40 << 10)).unwrap()).collect();
        assert_eq!(shape.requests(large).len(), 3);
        let huge = shape.example(0, &example(64 << 10)).unwrap_err();
        assert_eq!(huge.class, Class::TooLarge);
    }
}
