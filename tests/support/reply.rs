//! What came back, and what it says.

use serde_json::Value;
use valgate::catalogue::Reason;

/// A response as it came.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The status; 0 if the connection was closed without an answer.
    pub status: u16,
    /// The headers in their order, names in lower case, values with bytes beyond ASCII replaced.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Vec<(String, String)>,
}

impl Reply {
    /// The value of a header that stands there once; `None` if it is absent.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let first = values.next()?;
        assert!(values.next().is_none(), "{name} stands more than once: {self:?}");
        Some(&first.1)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// `200`, or `401 VAL-020 expired` for a refusal of the gateway. For tables.
pub fn verdict(reply: &Reply) -> String {
    let problem = reply.json();
    match (problem["code"].as_str(), problem["reason"].as_str()) {
        (Some(code), Some(reason)) => format!("{} {code} {reason}", reply.status),
        _ => reply.status.to_string(),
    }
}

/// Asserts that the reply is a refusal with this code and reason, in its usual form and whole.
#[track_caller]
pub fn refused(reply: &Reply, code: &str, reason: &str) {
    let row = Reason::ALL.iter().find(|row| row.code().number() == code && row.name() == reason);
    let row = row.unwrap_or_else(|| panic!("{code} has no reason {reason}"));
    let problem = reply.json();
    assert_eq!(verdict(reply), format!("{} {code} {reason}", row.status().as_u16()), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("vary"), Some("Accept"));
    assert_eq!(problem["status"], reply.status);
    assert_eq!(problem["title"], row.code().title());
    assert!(problem["type"].as_str().is_some_and(|kind| kind.contains(code)), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 20), "{problem}");
    assert_eq!(problem["request_id"].as_str(), reply.header("x-request-id"), "{reply:?}");
    assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{problem}");
}
