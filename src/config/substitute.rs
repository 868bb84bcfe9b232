//! `${ENV_VAR}` in values: keeps secrets, and what differs between deployments, out of the file.
//!
//! `$${` stands for a literal `${`. A variable that is unset or empty is a mistake, never an empty string: an
//! empty audience or address would be accepted somewhere and mean something else.

use super::place::Place;
use super::tree::{Node, Value};

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A reference that could not be filled in.
#[derive(Debug)]
pub(super) struct Unresolved {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) remedy: &'static str,
}

/// Fills in every value of the tree; keys are left alone.
pub(super) fn fill_in(root: &mut Node, environment: Environment<'_>) -> Vec<Unresolved> {
    let mut unresolved = Vec::new();
    node(root, &Place::root(), environment, &mut unresolved);
    unresolved
}

fn node(at: &mut Node, place: &Place, environment: Environment<'_>, unresolved: &mut Vec<Unresolved>) {
    match &mut at.value {
        Value::Mapping(entries) => {
            for entry in entries {
                node(&mut entry.node, &place.field(&entry.key), environment, unresolved);
            }
        }
        Value::Sequence(nodes) => {
            for (index, element) in nodes.iter_mut().enumerate() {
                node(element, &place.index(index), environment, unresolved);
            }
        }
        Value::Scalar(scalar) if scalar.text.contains("${") => match expand(&scalar.text, environment) {
            Ok(text) => scalar.written = Some(std::mem::replace(&mut scalar.text, text)),
            Err(error) => {
                scalar.written = Some(scalar.text.clone());
                unresolved.push(error.at(place));
            }
        },
        Value::Scalar(_) => {}
    }
}

enum SubstitutionError {
    Unset(String),
    Empty(String),
    Malformed,
}

impl SubstitutionError {
    fn at(self, place: &Place) -> Unresolved {
        let (message, remedy) = match self {
            Self::Unset(name) => (
                format!("the environment variable `{name}` is not set"),
                "set it, or write `$${` for a literal `${`",
            ),
            Self::Empty(name) => (
                format!("the environment variable `{name}` is empty"),
                "give it a value: an empty one is never meant",
            ),
            Self::Malformed => (
                "`${` without a variable's name and a closing `}`".to_owned(),
                "write `${NAME}` with letters, digits and `_`, or `$${` for a literal `${`",
            ),
        };
        Unresolved { place: place.clone(), message, remedy }
    }
}

fn expand(text: &str, environment: Environment<'_>) -> Result<String, SubstitutionError> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let (name, after) = after.split_once('}').ok_or(SubstitutionError::Malformed)?;
        if !is_variable_name(name) {
            return Err(SubstitutionError::Malformed);
        }
        match environment(name) {
            None => return Err(SubstitutionError::Unset(name.to_owned())),
            Some(value) if value.is_empty() => return Err(SubstitutionError::Empty(name.to_owned())),
            Some(value) => expanded.push_str(&value),
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn variables_are_filled_in() {
        let environment = |name: &str| match name {
            "HOST" => Some("example.com".to_owned()),
            "NESTED" => Some("${HOST}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let cases = [
            ("https://${HOST}/", Some("https://example.com/")),
            ("${HOST}${HOST}", Some("example.comexample.com")),
            ("$${HOST}", Some("${HOST}")),
            ("$$", Some("$$")),
            ("${NESTED}", Some("${HOST}")),
            ("${EMPTY}", None),
            ("${UNSET}", None),
            ("${HOST", None),
            ("${HOST:-x}", None),
            ("${}", None),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &environment).ok().as_deref(), expected, "{text}");
        }
    }
}
