//! How an endpoint of the development issuer behaves: as it should, or as providers do on a bad day.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::demo::serve::typed;

/// What an endpoint does with requests.
#[derive(Clone, Debug, Default)]
pub enum EndpointMode {
    /// Answers as it should.
    #[default]
    Serve,
    /// Answers with this status and a page that is not JSON.
    Status(StatusCode),
    /// Accepts the request and never answers.
    Hang,
    /// Answers 200 with this body.
    Body {
        /// What the body is.
        bytes: Bytes,
        /// What it claims to be.
        content_type: String,
    },
    /// Answers 302 to this location.
    Redirect(String),
}

impl EndpointMode {
    /// The answer to give in place of the right one; `None` if the right one is due.
    pub(super) async fn answer(self) -> Option<Response<Full<Bytes>>> {
        match self {
            Self::Serve => None,
            Self::Status(status) => Some(typed(status, "text/html", "<h1>Out of order</h1>")),
            Self::Hang => std::future::pending().await,
            Self::Body { bytes, content_type } => Some(typed(StatusCode::OK, &content_type, bytes)),
            Self::Redirect(location) => {
                let mut response = typed(StatusCode::FOUND, "text/plain", "");
                if let Ok(location) = HeaderValue::from_str(&location) {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                Some(response)
            }
        }
    }
}
