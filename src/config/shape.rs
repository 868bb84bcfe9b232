//! Checks the tree against the schema of the raw types and turns it into plain JSON for them.
//!
//! All structural mistakes are told at once: unknown and missing fields, wrong types, words that are none of the
//! allowed ones. What is wrong is replaced by a stand-in of the right type, so that the checks of meaning can run
//! over the rest of the file in the same pass. Knows no field by name: the schema says it all.

use serde_json::{Map, Value as Json};

use super::mistakes::Mistakes;
use super::nearest::nearest;
use super::place::Place;
use super::schema;
use super::tree::{Entry, Node, Scalar, Value};

/// The tree as JSON that fits `schema`, with stand-ins where it does not.
pub(super) fn conform(schema: &Json, root: &Node, mistakes: &mut Mistakes<'_>) -> Json {
    let mut walk = Walk { mistakes };
    walk.node(schema, root, &Place::root()).unwrap_or_else(|| {
        mistakes.mark_replaced(Place::root());
        stand_in(schema)
    })
}

struct Walk<'walk, 'source> {
    mistakes: &'walk mut Mistakes<'source>,
}

impl Walk<'_, '_> {
    /// The value as JSON; none if it is wrong, which then has been told.
    fn node(&mut self, schema: &Json, node: &Node, place: &Place) -> Option<Json> {
        if schema::is_secret(schema) && !is_reference(node) {
            self.mistakes.hide(node.span);
        }
        if schema::is_anything(schema) {
            return Some(anything(node));
        }
        if let Value::Scalar(scalar) = &node.value
            && scalar.is_null()
        {
            self.mistakes.add(place, "has no value", format!("give it {}, or remove it", expected(schema)));
            return None;
        }
        let alternatives = schema::alternatives(schema);
        match &node.value {
            Value::Mapping(entries) => {
                match alternatives.iter().find(|schema| schema::has_type(schema, "object")) {
                    Some(schema) => Some(self.mapping(schema, entries, place)),
                    None => self.wrong_type(schema, "a mapping", place),
                }
            }
            Value::Sequence(nodes) => {
                match alternatives.iter().find(|schema| schema::has_type(schema, "array")) {
                    Some(schema) => Some(self.sequence(schema, nodes, place)),
                    None => self.wrong_type(schema, "a list", place),
                }
            }
            Value::Scalar(scalar) => self.scalar(schema, &alternatives, scalar, place),
        }
    }

    fn mapping(&mut self, schema: &Json, entries: &[Entry], place: &Place) -> Json {
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let mut object = Map::new();
        let mut meant = Vec::new();
        for entry in entries {
            let here = place.field(&entry.key);
            match properties.and_then(|properties| properties.get(&entry.key)).or(others) {
                Some(schema) if schema::is_reserved(schema) => self.reserved(schema, entry, &here),
                Some(schema) => {
                    if let Some(value) = self.field(schema, entry, place, &here) {
                        object.insert(entry.key.clone(), value);
                    }
                }
                None => meant.extend(self.unknown(properties, entry, place)),
            }
        }
        for name in schema::required(schema) {
            if !object.contains_key(name) {
                let here = place.field(name);
                let field = properties.and_then(|properties| properties.get(name)).unwrap_or(&Json::Null);
                if !meant.iter().any(|meant| meant == name) && !self.mistakes.is_replaced(&here) {
                    let message = format!("the field `{name}` is missing");
                    self.mistakes.add(place, message, format!("add `{name}`: {}", expected(field)));
                }
                object.insert(name.to_owned(), stand_in(field));
                self.mistakes.mark_replaced(here);
            }
        }
        Json::Object(object)
    }

    fn field(&mut self, schema: &Json, entry: &Entry, place: &Place, here: &Place) -> Option<Json> {
        let value = self.node(schema, &entry.node, here);
        if value.is_none() {
            self.mistakes.mark_replaced(here.clone());
            self.mistakes.mark_incomplete(place.clone());
        }
        value
    }

    fn reserved(&mut self, schema: &Json, entry: &Entry, here: &Place) {
        self.mistakes.hide(entry.node.span);
        let purpose = schema.get("description").and_then(Json::as_str).unwrap_or_default();
        let purpose = purpose.trim_end_matches('.');
        self.mistakes.add_at_key(
            here,
            format!("is reserved and not available in this version: {purpose}"),
            "remove it; valgate refuses what it would otherwise silently ignore",
        );
        self.mistakes.mark_replaced(here.clone());
        self.mistakes.mark_incomplete(here.ancestors().nth(1).unwrap_or_default());
    }

    /// Tells of an unknown field and gives the name that was probably meant.
    fn unknown(
        &mut self,
        properties: Option<&Map<String, Json>>,
        entry: &Entry,
        place: &Place,
    ) -> Option<String> {
        let known = properties.into_iter().flatten().filter(|(_, schema)| !schema::is_reserved(schema));
        let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
        let meant = nearest(&entry.key, known.iter().copied());
        // A field that is not known to be harmless may hold a secret.
        let meant_schema = meant.and_then(|meant| properties?.get(meant));
        if meant_schema.is_none_or(schema::is_secret) {
            self.mistakes.hide(entry.node.span);
        }
        let remedy = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if known.is_empty() => "remove it: no fields are possible here".to_owned(),
            None => format!("possible fields are {}", list(&known)),
        };
        let here = place.field(&entry.key);
        self.mistakes.add_at_key(&here, "unknown field", remedy);
        self.mistakes.mark_incomplete(place.clone());
        meant.map(ToOwned::to_owned)
    }

    fn sequence(&mut self, schema: &Json, nodes: &[Node], place: &Place) -> Json {
        let items = schema.get("items").unwrap_or(&Json::Bool(true));
        let values = nodes.iter().enumerate().map(|(index, node)| {
            let here = place.index(index);
            self.node(items, node, &here).unwrap_or_else(|| {
                self.mistakes.mark_replaced(here);
                stand_in(items)
            })
        });
        Json::Array(values.collect())
    }

    fn scalar(
        &mut self,
        schema: &Json,
        alternatives: &[&Json],
        scalar: &Scalar,
        place: &Place,
    ) -> Option<Json> {
        if let Some(value) = alternatives.iter().find_map(|schema| as_schema_says(schema, scalar)) {
            return Some(value);
        }
        let words: Vec<&str> = alternatives.iter().flat_map(|schema| schema::words(schema)).collect();
        if words.is_empty() && alternatives.iter().all(|schema| schema::has_type(schema, "array")) {
            let message = format!("expected {}, found {}", expected(schema), described(scalar));
            self.mistakes.add(place, message, format!("write `[{}]`, a list of one", scalar.shown()));
            return None;
        }
        if words.is_empty() {
            return self.wrong_type(schema, &described(scalar), place);
        }
        let hint = alternatives.iter().find_map(|schema| schema.get("x-hint")?.as_str());
        let meant = nearest(scalar.shown(), words.iter().copied());
        let remedy = match (hint, meant) {
            (Some(hint), _) => hint.to_owned(),
            (None, Some(word)) => format!("did you mean `{word}`?"),
            (None, None) => format!("write {}", expected(schema)),
        };
        self.mistakes.add(place, format!("`{}` is not {}", scalar.shown(), expected(schema)), remedy);
        None
    }

    fn wrong_type(&mut self, schema: &Json, found: &str, place: &Place) -> Option<Json> {
        let expected = expected(schema);
        self.mistakes.add(place, format!("expected {expected}, found {found}"), format!("write {expected}"));
        None
    }
}

/// What `schema` asks for, in words: `a list of strings`.
pub(super) fn expected(schema: &Json) -> String {
    if let Some(words) = schema.get("x-expects").and_then(Json::as_str) {
        return words.to_owned();
    }
    let alternatives = schema::alternatives(schema);
    let words: Vec<&str> = alternatives.iter().flat_map(|schema| schema::words(schema)).collect();
    let mut phrases = Vec::new();
    match words.as_slice() {
        [] => {}
        [word] => phrases.push(format!("`{word}`")),
        words => phrases.push(format!("one of {}", list(words))),
    }
    for schema in alternatives.iter().filter(|schema| schema::words(schema).is_empty()) {
        phrases.push(match schema.get("x-expects").and_then(Json::as_str) {
            Some(words) => words.to_owned(),
            None => expected_type(schema),
        });
    }
    phrases.join(" or ")
}

fn expected_type(schema: &Json) -> String {
    let fields = |what: &str| {
        let names = schema.get("properties").and_then(Json::as_object).into_iter().flatten();
        let names: Vec<_> =
            names.filter(|(_, field)| !schema::is_reserved(field)).map(|(name, _)| name.as_str()).collect();
        if names.is_empty() { what.to_owned() } else { format!("{what} with {}", list(&names)) }
    };
    match schema.get("type").and_then(Json::as_str) {
        Some("string") => "a string".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => "a whole number".to_owned(),
        Some("array") => match schema.get("items") {
            Some(items) if schema::has_type(items, "object") => "a list of mappings".to_owned(),
            Some(items) if schema::has_type(items, "string") => "a list of strings".to_owned(),
            _ => "a list".to_owned(),
        },
        Some("object") => fields("a mapping"),
        _ => "a value".to_owned(),
    }
}

/// Whether a secret is elsewhere, so that what stands here may be shown.
fn is_reference(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(scalar) => scalar.written.is_some() || scalar.text.starts_with("file:"),
        _ => false,
    }
}

/// The scalar as one of the types that the schema allows; the text decides only where several are possible.
fn as_schema_says(schema: &Json, scalar: &Scalar) -> Option<Json> {
    let words = schema::words(schema);
    if !words.is_empty() {
        return words.contains(&scalar.text.as_str()).then(|| Json::from(scalar.text.as_str()));
    }
    // What came from the environment has no quotes to tell a number from a string.
    let unquoted = scalar.plain || scalar.written.is_some();
    if schema::has_type(schema, "string") {
        return Some(Json::from(scalar.text.as_str()));
    }
    if schema::has_type(schema, "integer") && unquoted {
        return scalar.text.parse::<u64>().ok().map(Json::from);
    }
    if schema::has_type(schema, "boolean") && unquoted {
        return scalar.text.parse::<bool>().ok().map(Json::from);
    }
    None
}

/// A value for which the file is free to choose the type: YAML's core schema (YAML 1.2.2 section 10.3).
fn anything(node: &Node) -> Json {
    match &node.value {
        Value::Mapping(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), anything(&entry.node))).collect())
        }
        Value::Sequence(nodes) => Json::Array(nodes.iter().map(anything).collect()),
        Value::Scalar(scalar) if scalar.is_null() => Json::Null,
        Value::Scalar(scalar) if scalar.plain => match scalar.text.as_str() {
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            text => number(text).unwrap_or_else(|| Json::from(text)),
        },
        Value::Scalar(scalar) => Json::from(scalar.text.as_str()),
    }
}

fn number(text: &str) -> Option<Json> {
    text.parse::<i64>()
        .map(Json::from)
        .or_else(|_| text.parse::<u64>().map(Json::from))
        .ok()
        .or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Json::from))
}

fn described(scalar: &Scalar) -> String {
    match anything(&Node { span: super::tree::Span::default(), value: Value::Scalar(scalar.clone()) }) {
        Json::Bool(_) | Json::Number(_) => format!("`{}`", scalar.shown()),
        _ => format!("the text `{}`", scalar.shown()),
    }
}

/// A value of the right type for what is missing or wrong.
fn stand_in(schema: &Json) -> Json {
    let alternatives = schema::alternatives(schema);
    let Some(schema) = alternatives.first() else { return Json::Null };
    if let Some(word) = schema::words(schema).first() {
        return Json::from(*word);
    }
    match schema::first_type(schema) {
        Some("string") => Json::from(""),
        Some("boolean") => Json::Bool(false),
        Some("integer") => Json::from(0),
        Some("array") => Json::Array(Vec::new()),
        Some("object") => {
            let properties = schema.get("properties");
            let field = |name: &&str| {
                let schema = properties.and_then(|properties| properties.get(name)).unwrap_or(&Json::Null);
                ((*name).to_owned(), stand_in(schema))
            };
            Json::Object(schema::required(schema).iter().map(field).collect())
        }
        _ => Json::Null,
    }
}

/// `` `a`, `b` or `c` ``.
pub(super) fn list(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [word] => format!("`{word}`"),
        [words @ .., last] => {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", words.join(", "))
        }
    }
}
