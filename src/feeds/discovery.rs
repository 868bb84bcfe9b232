//! Where an issuer's keys and endpoints are, by its own metadata: OIDC Discovery 1.0 section 4, else RFC 8414 section 3.
//!
//! The document must name the very issuer that was configured: else whoever can serve a document under some path of a
//! shared host could hand us another issuer's keys (RFC 8414 section 6.2). Knows nothing of keys.

use bytes::Bytes;
use serde_json::Value;
use url::Url;

use super::fetch::{FetchClient, FetchError, FetchRequest, Fetched, shown};
use crate::token::json_object;

/// The issuer's metadata documents, in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct Discovery {
    issuer: String,
    documents: Vec<Url>,
    allow_http: bool,
}

/// Why the issuer's keys could not be located.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum DiscoveryError {
    #[error(
        "discovery needs an issuer that is an https URL without query and fragment, and '{issuer}' is none; configure jwks_url instead"
    )]
    NotDiscoverable { issuer: String },
    #[error("discovery failed: {0}")]
    Fetch(#[from] FetchError),
    #[error(
        "discovery failed: {url} is no metadata document ({why}); check the issuer, or configure jwks_url"
    )]
    NotMetadata { url: String, why: String },
    #[error(
        "discovery failed: {url} is the metadata of the issuer {found:?}, not of {expected:?}; they must be equal to the letter, trailing slash included"
    )]
    OtherIssuer { url: String, found: String, expected: String },
    #[error("discovery failed: {url} has no {member} that is an absolute URL")]
    NoUrl { url: String, member: &'static str },
    #[error(
        "discovery failed: the {member} in {url} is not https; anyone on the way could change the answers"
    )]
    Downgrade { url: String, member: &'static str },
}

impl Discovery {
    /// Discovery for `issuer`, from the document at `document` if given, else from the well-known places.
    ///
    /// # Errors
    /// The issuer is no URL that has well-known places.
    pub fn new(issuer: &str, document: Option<Url>, allow_http: bool) -> Result<Self, DiscoveryError> {
        let documents = match document {
            Some(document) => vec![document],
            None => well_known(issuer)
                .ok_or_else(|| DiscoveryError::NotDiscoverable { issuer: issuer.to_owned() })?
                .into(),
        };
        Ok(Self { issuer: issuer.to_owned(), documents, allow_http })
    }

    /// Asks the issuer where its keys are. The second place is tried only if the first answers that it has no such
    /// document.
    ///
    /// # Errors
    /// See [`DiscoveryError`].
    pub async fn keys_url(&self, client: &FetchClient) -> Result<Url, DiscoveryError> {
        let (document, body) = self.metadata(client).await?;
        self.read(document, &body, "jwks_uri")
    }

    /// Asks the issuer where it answers questions about tokens (RFC 8414 section 2).
    ///
    /// # Errors
    /// See [`DiscoveryError`].
    pub async fn introspection_url(&self, client: &FetchClient) -> Result<Url, DiscoveryError> {
        let (document, body) = self.metadata(client).await?;
        self.read(document, &body, "introspection_endpoint")
    }

    async fn metadata(&self, client: &FetchClient) -> Result<(&Url, Bytes), DiscoveryError> {
        let mut absent = None;
        for document in &self.documents {
            let request = FetchRequest { accept: "application/json", ..FetchRequest::default() };
            match client.get(document, request).await {
                Ok(Fetched::Full { body, .. }) => return Ok((document, body)),
                Err(error @ FetchError::Status { .. }) => absent = absent.or(Some(error)),
                Err(error) => return Err(error.into()),
                Ok(Fetched::NotModified(_)) => {}
            }
        }
        Err(absent
            .map_or_else(|| DiscoveryError::NotDiscoverable { issuer: self.issuer.clone() }, Into::into))
    }

    fn read(&self, document: &Url, body: &[u8], member: &'static str) -> Result<Url, DiscoveryError> {
        let not_metadata =
            |why: &str| DiscoveryError::NotMetadata { url: shown(document), why: why.to_owned() };
        let members = json_object(body).map_err(|why| not_metadata(&why))?;
        let text = |member: &str| members.get(member).and_then(Value::as_str);
        let issuer = text("issuer").ok_or_else(|| not_metadata("it names no issuer"))?;
        if issuer != self.issuer {
            return Err(DiscoveryError::OtherIssuer {
                url: shown(document),
                found: shortened(issuer),
                expected: self.issuer.clone(),
            });
        }
        let url = text(member).and_then(|url| Url::parse(url).ok());
        let url = url.ok_or_else(|| DiscoveryError::NoUrl { url: shown(document), member })?;
        if document.scheme() == "https" && url.scheme() != "https" && !self.allow_http {
            return Err(DiscoveryError::Downgrade { url: shown(document), member });
        }
        Ok(url)
    }

    /// The documents that are tried.
    pub fn documents(&self) -> &[Url] {
        &self.documents
    }
}

/// OIDC appends to the issuer's path, RFC 8414 puts its name before it; both drop a terminating slash.
fn well_known(issuer: &str) -> Option<[Url; 2]> {
    let base = Url::parse(issuer).ok()?;
    if !matches!(base.scheme(), "https" | "http") || base.query().is_some() || base.fragment().is_some() {
        return None;
    }
    let path = base.path().strip_suffix('/').unwrap_or(base.path());
    let at = |path: String| {
        let mut url = base.clone();
        url.set_path(&path);
        url
    };
    Some([
        at(format!("{path}/.well-known/openid-configuration")),
        at(format!("/.well-known/oauth-authorization-server{path}")),
    ])
}

/// Foreign text in messages is kept short.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovery(issuer: &str) -> Discovery {
        Discovery::new(issuer, None, false).unwrap()
    }

    #[test]
    fn the_well_known_places_are_those_of_the_standards() {
        let cases = [
            (
                "https://id.example.com",
                "https://id.example.com/.well-known/openid-configuration",
                "https://id.example.com/.well-known/oauth-authorization-server",
            ),
            (
                "https://id.example.com/",
                "https://id.example.com/.well-known/openid-configuration",
                "https://id.example.com/.well-known/oauth-authorization-server",
            ),
            (
                "https://id.example.com:8443/realms/main",
                "https://id.example.com:8443/realms/main/.well-known/openid-configuration",
                "https://id.example.com:8443/.well-known/oauth-authorization-server/realms/main",
            ),
            (
                "https://id.example.com/realms/main/",
                "https://id.example.com/realms/main/.well-known/openid-configuration",
                "https://id.example.com/.well-known/oauth-authorization-server/realms/main",
            ),
        ];
        for (issuer, oidc, oauth) in cases {
            let documents: Vec<_> = discovery(issuer).documents().iter().map(Url::to_string).collect();
            assert_eq!(documents, [oidc, oauth], "{issuer}");
        }
        for issuer in ["main", "urn:issuer", "https://id.example.com/?a=b", "https://id.example.com/#f", ""] {
            assert!(Discovery::new(issuer, None, false).is_err(), "{issuer}");
        }
    }

    #[test]
    fn the_document_must_name_the_issuer_to_the_letter() {
        let discovery = discovery("https://id.example.com/a");
        let read = |issuer: &str, keys: &str| {
            let body = serde_json::json!({ "issuer": issuer, "jwks_uri": keys, "scopes_supported": [] });
            discovery.read(&discovery.documents[0], body.to_string().as_bytes(), "jwks_uri")
        };
        let keys = "https://keys.example.net/jwks";
        assert_eq!(read("https://id.example.com/a", keys).unwrap().as_str(), keys);
        for issuer in ["https://id.example.com/a/", "https://ID.example.com/a", "https://id.example.com", ""]
        {
            assert!(matches!(read(issuer, keys), Err(DiscoveryError::OtherIssuer { .. })), "{issuer}");
        }
        for keys in ["http://127.0.0.1/jwks", "http://keys.example.net/jwks", "file:///etc/passwd"] {
            assert!(
                matches!(read("https://id.example.com/a", keys), Err(DiscoveryError::Downgrade { .. })),
                "{keys}"
            );
        }
        assert!(matches!(read("https://id.example.com/a", "/jwks"), Err(DiscoveryError::NoUrl { .. })));
    }

    #[test]
    fn what_is_no_metadata_is_refused() {
        let discovery = discovery("https://id.example.com");
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"issuer":1,"jwks_uri":2}"#,
            r#"{"issuer":"https://evil.example","issuer":"https://id.example.com","jwks_uri":"https://e.example/"}"#,
            r#"{"issuer":"https://id.example.com","jwks_uri":"https://e.example/","jwks_uri":"https://f.example/"}"#,
        ] {
            let result = discovery.read(&discovery.documents[0], body.as_bytes(), "jwks_uri");
            assert!(matches!(result, Err(DiscoveryError::NotMetadata { .. })), "{body}");
        }
        let without = r#"{"issuer":"https://id.example.com"}"#;
        let result = discovery.read(&discovery.documents[0], without.as_bytes(), "introspection_endpoint");
        assert!(matches!(result, Err(DiscoveryError::NoUrl { member: "introspection_endpoint", .. })));
    }
}
