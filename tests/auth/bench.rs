//! A table of tokens, sent through a gateway one by one.

use crate::support::{TestGateway, send, verdict};

/// What to expect of a token that is good enough: the API gets the request, once, and answers whatever it likes.
pub const PASSES: &str = "passes";

/// Rows that have been sent, and those that did not come out as expected.
#[derive(Default)]
pub struct Bench {
    sent: usize,
    surprises: Vec<String>,
}

impl Bench {
    /// Sends the token to a path under `base` that no other row uses. `expected` is [`PASSES`], or what
    /// [`verdict`] gives for a refusal, and then the API must not have seen the request.
    pub async fn token(
        &mut self,
        gateway: &TestGateway,
        base: &str,
        name: &str,
        token: &str,
        expected: &str,
    ) {
        self.request(gateway, ("GET", base), name, &format!("Authorization: Bearer {token}\r\n"), expected)
            .await;
    }

    /// The same with this method and these header lines, each ended by CRLF.
    pub async fn request(
        &mut self,
        gateway: &TestGateway,
        (method, base): (&str, &str),
        name: &str,
        headers: &str,
        expected: &str,
    ) {
        self.sent += 1;
        let path = format!("{base}/{}", self.sent);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n{headers}\r\n"
        );
        let reply = send(gateway.plain, request).await;
        let reached = gateway.received(&path).len();
        let verdict = verdict(&reply);
        let is_refusal = verdict.contains("VAL-");
        let as_expected = if expected == PASSES {
            !is_refusal && reached == 1
        } else {
            verdict == expected && reached == 0
        };
        if !as_expected {
            let detail = reply.json()["detail"].clone();
            self.surprises.push(format!(
                "{name}: {verdict} (the API got it {reached} times), not {expected}; {detail}"
            ));
        }
    }

    /// Fails if any row surprised.
    #[track_caller]
    pub fn finish(self) {
        assert!(self.sent > 0, "an empty table proves nothing");
        assert!(
            self.surprises.is_empty(),
            "{} of {}:\n{}",
            self.surprises.len(),
            self.sent,
            self.surprises.join("\n")
        );
    }
}
