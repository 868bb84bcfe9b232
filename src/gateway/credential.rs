//! The credential step: exactly one credential, from where the route says it is. Whether it has the form of a token is
//! looked at where it is not known from before.

use http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use http::{HeaderMap, HeaderValue, Method};

use super::sanitize::CleanRequest;
use crate::catalogue::Reason;
use crate::rejection::Rejection;
use crate::token::Presented;

/// Where a route looks for the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// The Authorization header (RFC 6750 section 2.1).
    Header,
    /// The Authorization header or this cookie, but not both. With the cookie, a request that may change something
    /// must come from a page of the same origin, since browsers send cookies whoever asks.
    Cookie(Box<str>),
}

/// Where a request comes from, as far as that says whether its cookies were meant to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// The client's own connection is secure.
    pub is_https: bool,
    /// A page of an origin that the operator lets send cookies along.
    pub is_trusted_page: bool,
}

/// What a request shows for a token.
pub fn extract<'r, B>(
    request: &'r CleanRequest<B>,
    source: &TokenSource,
    from: Sender,
    max_token: usize,
) -> Result<Presented<'r>, Rejection> {
    let from_header = token_from_header(request.headers())?;
    let shown = match source {
        TokenSource::Header => from_header,
        TokenSource::Cookie(name) => match (from_header, from_cookie(request.headers(), name)?) {
            (Some(_), Some(_)) => {
                return Err(Rejection::new(Reason::Multiple).hint(
                    "The request carries a token in the Authorization header and another in a cookie.",
                ));
            }
            (None, Some(shown)) => {
                check_same_origin(request, from)?;
                Some(shown)
            }
            (header, None) => header,
        },
    };
    let shown = shown.ok_or_else(|| Rejection::new(Reason::Missing))?;
    if shown.expose().len() > max_token {
        return Err(Reason::TokenTooLarge.into());
    }
    Ok(shown)
}

/// What stands after `Bearer` in any case and one or more spaces (RFC 9110 section 11.4, RFC 6750 section 2.1); `None`
/// without an Authorization header.
pub fn token_from_header(headers: &HeaderMap) -> Result<Option<Presented<'_>>, Rejection> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Rejection::new(Reason::Multiple).hint("There is more than one Authorization header."));
    }
    let value = value.as_bytes();
    let space = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at_checked(space).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(if value.is_empty() { Reason::Empty } else { Reason::NotBearer }.into());
    }
    let token = rest.iter().position(|byte| *byte != b' ').and_then(|begin| rest.get(begin..));
    token.map(|token| Some(Presented::new(token))).ok_or_else(|| Reason::Empty.into())
}

/// The value of the one cookie of this name (RFC 6265 section 4.2).
fn from_cookie<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<Presented<'h>>, Rejection> {
    let mut found = None;
    for value in headers.get_all(COOKIE) {
        let text = value.to_str().map_err(|_| Rejection::new(Reason::IllegalCharacters))?;
        for pair in text.split(';') {
            let Some((key, value)) = pair.trim_matches([' ', '\t']).split_once('=') else { continue };
            // Servers differ in whether a blank before the equals sign is part of the name: here it is not.
            if key.trim_end_matches([' ', '\t']) != name {
                continue;
            }
            if found.replace(value).is_some() {
                return Err(
                    Rejection::new(Reason::Multiple).hint("The token's cookie appears more than once.")
                );
            }
        }
    }
    match found {
        Some("") => Err(Reason::Empty.into()),
        other => Ok(other.map(|token| Presented::new(token.as_bytes()))),
    }
}

/// Methods that may change something need proof that a page of this origin asked: `Sec-Fetch-Site` (W3C Fetch
/// Metadata) or, from older browsers, `Origin` (RFC 6454). Neither is a refusal: fail closed.
fn check_same_origin<B>(request: &CleanRequest<B>, from: Sender) -> Result<(), Rejection> {
    let headers = request.headers();
    // A WebSocket handshake is a GET that opens the way for anything (CWE-1385).
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if (is_safe && !headers.contains_key(http::header::UPGRADE)) || from.is_trusted_page {
        return Ok(());
    }
    let scheme = if from.is_https { "https://" } else { "http://" };
    let is_ours = |origin: &str| {
        let authority = origin.strip_prefix(scheme);
        authority.is_some_and(|authority| {
            request.authority().as_bytes().eq_ignore_ascii_case(authority.as_bytes())
        })
    };
    let fetch_site = every(headers, "sec-fetch-site", |site| site == "same-origin");
    let origin = every(headers, ORIGIN.as_str(), is_ours);
    match (fetch_site, origin) {
        (Some(true), None | Some(true)) | (None, Some(true)) => Ok(()),
        _ => Err(Reason::CrossOrigin.into()),
    }
}

/// Whether all headers of this name hold what they should; `None` if there are none.
fn every(headers: &HeaderMap, name: &str, holds: impl Fn(&str) -> bool) -> Option<bool> {
    let good = |value: &HeaderValue| value.to_str().is_ok_and(&holds);
    headers.contains_key(name).then(|| headers.get_all(name).iter().all(good))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{AUTHORIZATION, COOKIE};

    use super::{from_cookie, token_from_header};
    use crate::catalogue::Reason;
    use crate::token::Presented;

    fn as_text(shown: Presented<'_>) -> String {
        String::from_utf8(shown.expose().to_owned()).unwrap()
    }

    fn header(values: &[&'static str]) -> Result<Option<String>, Reason> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        token_from_header(&headers).map(|token| token.map(as_text)).map_err(|rejection| rejection.reason())
    }

    #[test]
    fn the_scheme_is_read_in_any_case_and_the_rest_strictly() {
        for good in ["Bearer abc", "bearer abc", "BEARER   abc"] {
            assert_eq!(header(&[good]), Ok(Some("abc".to_owned())), "{good}");
        }
        assert_eq!(header(&[]), Ok(None));
        for (bad, reason) in [
            ("", Reason::Empty),
            ("Bearer", Reason::Empty),
            ("Bearer ", Reason::Empty),
            ("Bearer\tabc", Reason::NotBearer),
            ("Basic abc", Reason::NotBearer),
            ("Bearerabc", Reason::NotBearer),
            ("abc", Reason::NotBearer),
        ] {
            assert_eq!(header(&[bad]), Err(reason), "{bad:?}");
        }
        assert_eq!(header(&["Bearer a", "Bearer a"]), Err(Reason::Multiple));
    }

    #[test]
    fn a_cookie_is_found_by_its_exact_name_and_once() {
        let cookie = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, text.parse().unwrap());
            from_cookie(&headers, "__Host-token").map(|token| token.map(as_text)).map_err(|r| r.reason())
        };
        assert_eq!(cookie("a=b; __Host-token=x.y.z; c=d"), Ok(Some("x.y.z".to_owned())));
        assert_eq!(cookie("__host-token=x; x__Host-token=y"), Ok(None));
        assert_eq!(cookie("__Host-token=x; __Host-token=x"), Err(Reason::Multiple));
        assert_eq!(cookie("__Host-token=x; __Host-token =y"), Err(Reason::Multiple));
        assert_eq!(cookie("__Host-token="), Err(Reason::Empty));
    }
}
