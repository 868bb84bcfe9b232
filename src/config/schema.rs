//! The JSON Schema of the configuration file, and how to read it.
//!
//! Derived from the raw types, so that editors, `check` and the documentation cannot disagree. Extensions:
//! `x-expects` says in words what a value must be, `x-hint` adds a remedy, `x-reserved` marks fields that a later
//! version will have; `writeOnly` (JSON Schema validation, section 9.4) marks secrets.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json};

use super::raw;

/// The schema that `valgate schema` prints.
pub fn schema() -> Json {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<raw::Config>().to_value();
    tidy(&mut schema);
    schema
}

/// The branches of a schema; itself if it has none.
pub(super) fn alternatives(schema: &Json) -> Vec<&Json> {
    match schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array) {
        Some(branches) => branches.iter().flat_map(alternatives).collect(),
        None => vec![schema],
    }
}

/// The only texts that are allowed, if the schema lists them.
pub(super) fn words(schema: &Json) -> Vec<&str> {
    match (schema.get("enum").and_then(Json::as_array), schema.get("const").and_then(Json::as_str)) {
        (Some(words), _) => words.iter().filter_map(Json::as_str).collect(),
        (None, Some(word)) => vec![word],
        (None, None) => Vec::new(),
    }
}

/// Whether a value of this JSON type is allowed.
pub(super) fn has_type(schema: &Json, name: &str) -> bool {
    types(schema).contains(&name)
}

/// The first JSON type that is allowed.
pub(super) fn first_type(schema: &Json) -> Option<&str> {
    types(schema).first().copied()
}

/// The names of required fields.
pub(super) fn required(schema: &Json) -> Vec<&str> {
    let names = schema.get("required").and_then(Json::as_array).into_iter().flatten();
    names.filter_map(Json::as_str).collect()
}

/// A field of a later version.
pub(super) fn is_reserved(schema: &Json) -> bool {
    schema.get("x-reserved").is_some()
}

/// A value that must never be shown.
pub(super) fn is_secret(schema: &Json) -> bool {
    schema.get("writeOnly").is_some()
}

/// A schema that allows every value.
pub(super) fn is_anything(schema: &Json) -> bool {
    match schema {
        Json::Bool(allowed) => *allowed,
        Json::Object(fields) => {
            !["type", "enum", "const", "anyOf", "oneOf", "not"].iter().any(|key| fields.contains_key(*key))
        }
        _ => false,
    }
}

fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// An absent field is absent: `null` is not another way to say so. And descriptions are paragraphs, not lines.
fn tidy(schema: &mut Json) {
    match schema {
        Json::Object(fields) => {
            without_null(fields);
            if let Some(Json::String(text)) = fields.get_mut("description") {
                *text = unwrapped(text);
            }
            fields.values_mut().for_each(tidy);
        }
        Json::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn without_null(fields: &mut Map<String, Json>) {
    if fields.get("default").is_some_and(Json::is_null) {
        fields.remove("default");
    }
    if let Some(Json::Array(names)) = fields.get_mut("type") {
        names.retain(|name| name != "null");
        if let [only] = names.as_slice() {
            let only = only.clone();
            fields.insert("type".to_owned(), only);
        }
    }
    if let Some(Json::Array(values)) = fields.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let Some(Json::Array(branches)) = fields.get_mut("anyOf") else { return };
    branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
    if let [Json::Object(only)] = branches.as_slice() {
        let only = only.clone();
        fields.remove("anyOf");
        for (key, value) in only {
            // The description of the field says more than that of its type.
            fields.entry(key).or_insert(value);
        }
    }
}

fn unwrapped(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}
