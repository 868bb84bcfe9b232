//! `/token/verify`: why a token is or would be refused, by the keys and feeds of the running gateway.

use http::{Method, StatusCode, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::answer::{Answer, json, problem};
use crate::admin::in_force::InForce;
use crate::admin::{Call, Endpoint, Operation, Reply};
use crate::gateway::Explanation;

/// The endpoint.
#[derive(Debug)]
pub struct VerifyToken(pub InForce);

/// Which token, and for which request.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The token alone, without `Bearer`. It is neither kept nor logged.
    pub token: String,
    /// The absolute URL of a request; without it nothing is said of routes, scopes and rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The method of the request at `url`; `GET` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

impl Question {
    /// The request that the token is for, or what is wrong with it in words.
    pub fn request(&self) -> Result<Option<(Method, Uri)>, String> {
        let Some(url) = &self.url else { return Ok(None) };
        let uri: Uri = url.parse().map_err(|_| format!("'{}' is not a URL.", url.escape_debug()))?;
        if uri.authority().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("The URL must be absolute, such as https://api.example.com/orders/7.".to_owned());
        }
        let method = self.method.as_deref().unwrap_or("GET").parse();
        Ok(Some((method.map_err(|_| "The method is not one.".to_owned())?, uri)))
    }
}

impl Endpoint for VerifyToken {
    fn path(&self) -> &'static str {
        "/token/verify"
    }

    fn operations(&self) -> Vec<Operation> {
        vec![
            Operation::new(Method::POST, "The verdict on a token, check by check.")
                .takes::<Question>()
                .answers::<Explanation>(StatusCode::OK, "The verdict, whether accepted or refused."),
        ]
    }

    fn answer<'c>(&'c self, call: &'c Call) -> Reply<'c> {
        Box::pin(verify(&self.0, &call.body))
    }
}

async fn verify(in_force: &InForce, body: &[u8]) -> Answer {
    let Ok(question) = serde_json::from_slice::<Question>(body) else {
        let detail = "The body must be a JSON object such as {\"token\": \"...\", \"url\": \"https://...\"}.";
        return problem(StatusCode::BAD_REQUEST, detail);
    };
    let request = match question.request() {
        Ok(request) => request,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, &detail),
    };
    let explainer = in_force.current().explainer.clone();
    json(StatusCode::OK, &explainer.explain(&question.token, request).await)
}
