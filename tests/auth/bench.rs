//! A table of tokens, sent through a gateway one by one.

use crate::support::{TestGateway, send, verdict};

/// Rows that have been sent, and those that did not come out as expected.
#[derive(Default)]
pub struct Bench {
    sent: usize,
    surprises: Vec<String>,
}

impl Bench {
    /// Sends the token to a path under `base` that no other row uses. `expected` is what [`verdict`] gives; with
    /// `200` the request must have reached the API once, and with anything else not at all.
    pub async fn token(
        &mut self,
        gateway: &TestGateway,
        base: &str,
        name: &str,
        token: &str,
        expected: &str,
    ) {
        self.request(gateway, base, name, &format!("Authorization: Bearer {token}\r\n"), expected).await;
    }

    /// The same with these header lines, each ended by CRLF.
    pub async fn request(
        &mut self,
        gateway: &TestGateway,
        base: &str,
        name: &str,
        headers: &str,
        expected: &str,
    ) {
        self.sent += 1;
        let path = format!("{base}/{}", self.sent);
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n{headers}\r\n");
        let reply = send(gateway.plain, request).await;
        let reached = gateway.received(&path).len();
        let verdict = verdict(&reply);
        if verdict != expected || reached != usize::from(expected == "200") {
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
