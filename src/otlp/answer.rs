//! What a collector's answer means for the delivery (OTLP specification, "OTLP/HTTP Response").

use std::time::Duration;

use http::header::RETRY_AFTER;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

use crate::feeds::fetch::Answered;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken, but for so many spans.
    Taken {
        /// How many were not.
        rejected: u64,
        /// Why; empty if all were.
        message: String,
    },
    /// It may be taken if it is sent again.
    Again {
        /// What was said.
        why: String,
        /// How long to wait, if that was said.
        wait: Option<Duration>,
    },
    /// It will never be taken.
    Refused {
        /// What was said.
        why: String,
    },
}

/// No collector is left alone for longer than this, whatever it asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// As much of a message as a log line bears.
const MAX_MESSAGE: usize = 200;

impl Verdict {
    /// The meaning of this answer.
    pub fn of(answer: &Answered) -> Self {
        let status = answer.status;
        if status.is_success() {
            // A proxy on the way may have answered with a page of its own: taken is taken.
            let response = ExportTraceServiceResponse::decode(answer.body.clone()).unwrap_or_default();
            let partial = response.partial_success.unwrap_or_default();
            let rejected = u64::try_from(partial.rejected_spans).unwrap_or_default();
            return Self::Taken {
                rejected,
                message: partial.error_message.chars().take(MAX_MESSAGE).collect(),
            };
        }
        let why = format!("the collector answers with status {status}");
        match status.as_u16() {
            429 | 502 | 503 | 504 => Self::Again { why, wait: wait(answer) },
            _ => Self::Refused { why },
        }
    }
}

/// Dates are not read: the collector's clock may be another.
fn wait(answer: &Answered) -> Option<Duration> {
    let seconds = answer.head.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, StatusCode};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;
    use crate::feeds::fetch::FetchedHead;

    fn verdict(status: u16, retry_after: &'static str, body: Vec<u8>) -> Verdict {
        let mut headers = HeaderMap::new();
        if !retry_after.is_empty() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(retry_after));
        }
        let head = FetchedHead { headers, ..FetchedHead::default() };
        Verdict::of(&Answered {
            status: StatusCode::from_u16(status).unwrap(),
            head,
            body: Bytes::from(body),
        })
    }

    fn waits(verdict: &Verdict) -> Option<Option<u64>> {
        match verdict {
            Verdict::Again { wait, .. } => Some(wait.map(|wait| wait.as_secs())),
            _ => None,
        }
    }

    #[test]
    fn what_may_be_sent_again_is_as_the_specification_says() {
        for status in [429, 502, 503, 504] {
            assert_eq!(waits(&verdict(status, "", Vec::new())), Some(None), "{status}");
        }
        for status in [302, 400, 401, 403, 404, 413, 500, 501] {
            assert!(matches!(verdict(status, "1", Vec::new()), Verdict::Refused { .. }), "{status}");
        }
    }

    #[test]
    fn a_collector_is_left_alone_for_as_long_as_it_asks_within_reason() {
        assert_eq!(waits(&verdict(429, "7", Vec::new())), Some(Some(7)));
        assert_eq!(waits(&verdict(503, "86400", Vec::new())), Some(Some(60)));
        assert_eq!(waits(&verdict(503, "Wed, 21 Oct 2026 07:28:00 GMT", Vec::new())), Some(None));
        assert_eq!(waits(&verdict(503, "-1", Vec::new())), Some(None));
    }

    #[test]
    fn what_was_rejected_of_a_delivery_is_read() {
        let response = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: 3,
                error_message: "too old".to_owned(),
            }),
        };
        let taken = |rejected, message: &str| Verdict::Taken { rejected, message: message.to_owned() };
        assert_eq!(verdict(200, "", response.encode_to_vec()), taken(3, "too old"));
        assert_eq!(verdict(200, "", Vec::new()), taken(0, ""));
        assert_eq!(verdict(200, "", b"<html>".to_vec()), taken(0, ""));
    }
}
