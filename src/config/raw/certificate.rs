//! Client certificates, wherever the file speaks of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ClaimPath;

/// Client certificates that a TLS listener asks for (mutual TLS).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificates {
    /// PEM file with the certificate authorities that issue them. Relative to the configuration file.
    pub ca: String,
    /// Files of the certificates that these authorities have revoked (RFC 5280), in PEM or DER. With them, a certificate
    /// is refused that is on its authority's list, or whose authority has none here that is still in time.
    #[serde(default)]
    pub crls: Vec<String>,
    /// Refuse connections without one. Without this, routes decide by `require.client_certificate`.
    #[serde(default = "yes")]
    pub required: bool,
}

/// What a client certificate must say: every field that is given, by one of its texts. `{}`: any certificate that
/// the listener accepts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequiredCertificate {
    /// The whole subject by RFC 4514, the most specific part first: `CN=orders,O=Example`.
    pub subject: Option<OneOrMany>,
    /// A common name of the subject.
    pub common_name: Option<OneOrMany>,
    /// A subject alternative name of the kind DNS.
    pub san_dns: Option<OneOrMany>,
    /// A subject alternative name of the kind URI, such as a SPIFFE id.
    pub san_uri: Option<OneOrMany>,
    /// A subject alternative name of the kind email.
    pub san_email: Option<OneOrMany>,
    /// The SHA-256 digest of the certificate in hexadecimal, with or without colons.
    pub thumbprint: Option<OneOrMany>,
}

/// A text, or a list of which one will do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// This one.
    One(String),
    /// One of these.
    Many(Vec<String>),
}

/// Where an identity header's value comes from: a claim, or the client certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum IdentitySource {
    /// A claim of the token.
    Claim(ClaimPath),
    /// The client certificate.
    Certificate(CertificateSource),
}

/// Something that the client certificate says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateSource {
    /// Which part of it; `rfc9440` is the whole certificate as the header `Client-Cert` has it.
    pub certificate: CertificateFact,
}

/// A part of a client certificate.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateFact {
    Subject,
    CommonName,
    SanDns,
    SanUri,
    SanEmail,
    Thumbprint,
    Rfc9440,
}

/// A certificate of the gateway's own, with its private key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertifiedKey {
    /// PEM file with the certificate, followed by the intermediate ones. Relative to the configuration file.
    pub certificate: String,
    /// PEM file with the private key (PKCS#8, PKCS#1 or SEC1). Relative to the configuration file.
    pub private_key: String,
}

fn yes() -> bool {
    true
}
