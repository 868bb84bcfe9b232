//! A refusal in the words of gRPC: `grpc-status` and `grpc-message` (the gRPC over HTTP/2 specification).

use std::fmt::Write as _;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::catalogue::Reason;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Puts status and message in: as headers of a trailers-only response, or as trailers.
pub fn put_status(fields: &mut HeaderMap, reason: Reason, sentence: Option<&str>) {
    let message = match sentence {
        Some(words) => format!("{}: {words}", reason.code()),
        None => reason.code().to_string(),
    };
    fields.insert(GRPC_STATUS, HeaderValue::from(u16::from(reason.grpc_status())));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&message)) {
        fields.insert(GRPC_MESSAGE, message);
    }
}

/// The trailers that end a stream for this reason.
pub fn trailers(reason: Reason) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    put_status(&mut trailers, reason, Some(reason.cause()));
    trailers
}

/// The trailers of a call that succeeded.
pub fn ok_trailers() -> HeaderMap {
    HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))])
}

/// `grpc-message` is percent-encoded outside printable ASCII.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    })
}
