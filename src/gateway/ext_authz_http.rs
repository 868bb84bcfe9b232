//! Envoy's external authorization by HTTP (`http_service`): status, headers and body are the verdict as they stand;
//! only what Envoy is to leave out needs a word of its own.

use http::header::HeaderName;
use http::{HeaderValue, Response};

use super::body::ResponseBody;

/// Read by Envoy in an answer with status 200, and passed on to nobody.
const X_ENVOY_AUTH_HEADERS_TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// Tells Envoy the verdict.
pub fn answer(mut verdict: Response<ResponseBody>, removed: &[HeaderName]) -> Response<ResponseBody> {
    let names: Vec<&str> = removed.iter().map(HeaderName::as_str).collect();
    if let Ok(list) = HeaderValue::from_str(&names.join(","))
        && !names.is_empty()
    {
        verdict.headers_mut().insert(X_ENVOY_AUTH_HEADERS_TO_REMOVE, list);
    }
    verdict
}
