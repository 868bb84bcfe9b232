//! Texts that mean something: durations, sizes, shares, secrets. And fields of later versions.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration: `500ms`, `30s`, `10m`, `24h`, `365d`, or several together: `1h30m`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct DurationText(pub String);

/// A number of bytes: `16KiB`, `1MiB`, `1GiB`, or plain bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct SizeText(pub String);

/// A share: `100%`, `1%`, `0.1%`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct ShareText(pub String);

/// A text that is never shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct SecretText(pub String);

/// A field that a later version will have. Refused rather than ignored.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Reserved {}

impl From<&str> for DurationText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<&str> for SizeText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<&str> for ShareText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]+(ms|s|m|h|d))+$",
            "x-expects": "a duration such as `30s`",
            "x-type": "duration"
        })
    }
}

impl JsonSchema for SizeText {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$",
            "x-expects": "a size such as `16KiB`",
            "x-type": "size"
        })
    }
}

impl JsonSchema for ShareText {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(\\.[0-9]{1,4})?%$",
            "x-expects": "a share such as `1%`",
            "x-type": "share"
        })
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "writeOnly": true,
            "x-expects": "a secret as `${ENV_VAR}` or `file:PATH`",
            "x-type": "secret"
        })
    }
}

impl JsonSchema for Reserved {
    fn schema_name() -> Cow<'static, str> {
        "Reserved".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "not": {}, "x-reserved": true })
    }
}
