//! docs/configuration.md, from the schema and so from the types.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::schema;

const HEAD: &str = "\
# Configuration reference

<!-- Generated from the types of the configuration; a test keeps it so. -->

One YAML file. Unknown fields are errors, and all errors are shown at once: `valgate check FILE`. Durations are
written `500ms`, `30s`, `10m`, `24h`, `365d`, sizes `16KiB`, `1MiB` or in bytes. `${NAME}` in a value stands for an
environment variable, which must be set, and `$${` for a literal `${`; between `{` and `}` such a value needs
quotes. Paths are relative to the directory of the file. [`config/valgate.yaml`](../config/valgate.yaml) shows
every field at work, and small examples stand beside it.

Fields marked *reserved* belong to later versions and are refused, so that none is silently ignored.
";

/// The reference as Markdown.
pub fn reference() -> String {
    let schema = schema::schema();
    let mut page = Page { text: HEAD.to_owned() };
    page.section("The file", &schema);
    page.text
}

struct Page {
    text: String,
}

impl Page {
    /// A table of the fields of `schema`, followed by the sections of those that have fields themselves.
    fn section(&mut self, title: &str, schema: &Json) {
        let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return };
        let _ = writeln!(self.text, "\n## {title}\n");
        if let Some(description) = description(schema) {
            let _ = writeln!(self.text, "{description}\n");
        }
        self.text.push_str("| field | type | default | meaning |\n|---|---|---|---|\n");
        let required = schema::required(schema);
        for (name, field) in ordered(properties, &required) {
            let default = match field.get("default") {
                _ if required.contains(&name) => "**required**".to_owned(),
                _ if schema::is_reserved(field) => "*reserved*".to_owned(),
                Some(default) if !default.is_object() => format!("`{}`", shown(default)),
                _ => String::new(),
            };
            let meaning = description(field).unwrap_or_default().replace('|', "\\|").replace("\n\n", "<br>");
            let _ = writeln!(self.text, "| `{name}` | {} | {default} | {meaning} |", type_of(field));
        }
        for (name, field) in ordered(properties, &required) {
            if let Some((suffix, nested)) = nested(field) {
                let title = match title {
                    "The file" => format!("`{name}{suffix}`"),
                    outer => format!("`{}.{name}{suffix}`", outer.trim_matches('`')),
                };
                self.section(&title, nested);
            }
        }
    }
}

/// Required fields first, reserved ones last.
fn ordered<'a>(properties: &'a Map<String, Json>, required: &[&str]) -> Vec<(&'a str, &'a Json)> {
    let mut fields: Vec<_> = properties.iter().map(|(name, field)| (name.as_str(), field)).collect();
    fields.sort_by_key(|(name, field)| (schema::is_reserved(field), !required.contains(name)));
    fields
}

/// The schema with fields that `field` leads to, and what of the path does so.
fn nested(field: &Json) -> Option<(&'static str, &Json)> {
    schema::alternatives(field).into_iter().find_map(|schema| match schema.get("items") {
        Some(items) => nested(items).map(|(_, nested)| ("[]", nested)),
        None => schema.get("properties").map(|_| ("", schema)),
    })
}

fn description(schema: &Json) -> Option<&str> {
    schema.get("description").and_then(Json::as_str)
}

fn type_of(field: &Json) -> String {
    if schema::is_reserved(field) {
        return String::new();
    }
    let names: Vec<String> = schema::alternatives(field).into_iter().map(type_of_one).collect();
    names.join(", ")
}

fn type_of_one(schema: &Json) -> String {
    if let Some(name) = schema.get("x-type").and_then(Json::as_str) {
        return name.to_owned();
    }
    let words = schema::words(schema);
    if !words.is_empty() {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    match (schema::first_type(schema), schema.get("items")) {
        (Some("array"), Some(items)) if nested(items).is_some() => "list of mappings".to_owned(),
        (Some("array"), Some(items)) => format!("list of {}", type_of(items)),
        (Some("object"), _) => "mapping".to_owned(),
        (Some("string"), _) => "text".to_owned(),
        (Some("integer"), _) => "number".to_owned(),
        (Some("boolean"), _) => "`true`, `false`".to_owned(),
        _ => "any value".to_owned(),
    }
}

fn shown(default: &Json) -> String {
    match default {
        Json::String(text) => text.clone(),
        Json::Array(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
