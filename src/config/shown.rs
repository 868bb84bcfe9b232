//! A configuration as it may be shown: what is secret is masked, and what came from the environment is named.

use serde_json::Value as Json;

use super::tree::{Node, Span, Value};

/// What stands for a secret.
const MASKED: &str = "********";

/// The tree as JSON. Scalars are texts as written, since what they mean is for the types to say.
pub(super) fn document(node: &Node, secrets: &[Span]) -> Json {
    if secrets.contains(&node.span) {
        return Json::from(MASKED);
    }
    match &node.value {
        Value::Mapping(entries) => Json::Object(
            entries.iter().map(|entry| (entry.key.clone(), document(&entry.node, secrets))).collect(),
        ),
        Value::Sequence(nodes) => nodes.iter().map(|node| document(node, secrets)).collect(),
        Value::Scalar(scalar) if scalar.plain && scalar.written.is_none() => match scalar.text.as_str() {
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            text => text.parse::<u64>().map_or_else(|_| Json::from(text), Json::from),
        },
        Value::Scalar(scalar) => Json::from(scalar.shown()),
    }
}
