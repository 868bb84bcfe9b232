//! `/refusals`: the last refusals, found by request id or token fingerprint, with every check's verdict.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::now;
use crate::admin::answer::json;
use crate::admin::{Call, Endpoint, Operation, Parameter, Reply};
use crate::gateway::{Refusals, RefusedRequest};

/// The endpoint.
#[derive(Debug)]
pub struct RefusalsList(pub Refusals);

/// Refusals, the newest first.
#[derive(Serialize, JsonSchema)]
struct RefusalList {
    refusals: Vec<RefusedRequest>,
}

/// How many are shown unless asked otherwise.
const USUAL: usize = 20;

impl Endpoint for RefusalsList {
    fn path(&self) -> &'static str {
        "/refusals"
    }

    fn operations(&self) -> Vec<Operation> {
        let text = |name, description| Parameter { name, description, is_number: false };
        vec![
            Operation::get::<RefusalList>("The last refusals, the newest first.")
                .parameter(text("request_id", "Only the one with this X-Request-Id."))
                .parameter(text(
                    "token",
                    "Only those of the token with this fingerprint, as in the access log.",
                ))
                .parameter(text("code", "Only those with this code, such as VAL-020."))
                .parameter(Parameter {
                    name: "limit",
                    description: "At most so many; 20 if absent.",
                    is_number: true,
                }),
        ]
    }

    fn answer<'c>(&'c self, call: &'c Call) -> Reply<'c> {
        let asked = |name: &str| call.query.get(name).map(String::as_str);
        let is =
            |wanted: Option<&str>, found: Option<&str>| wanted.is_none_or(|wanted| found == Some(wanted));
        let (request_id, token, code) = (asked("request_id"), asked("token"), asked("code"));
        let most = asked("limit").and_then(|limit| limit.parse().ok()).unwrap_or(USUAL);
        let refusals = self.0.latest(most, |refused| {
            is(request_id, Some(&refused.request_id))
                && is(token, refused.token.as_deref())
                && is(code, Some(&refused.refusal.code))
        });
        now(json(StatusCode::OK, &RefusalList { refusals }))
    }
}
