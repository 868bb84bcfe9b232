//! `/token/verify`: why a token is or would be refused, by the keys and feeds of the running gateway.

use http::{Method, StatusCode, Uri};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::answer::{Answer, json, problem};
use crate::admin::in_force::InForce;
use crate::admin::{Call, Endpoint, Operation, Reply};
use crate::certificate::ClientCertificate;
use crate::gateway::{Explanation, PeerCertificate};

/// The endpoint.
#[derive(Debug)]
pub struct VerifyToken(pub InForce);

/// Which token, and for which request.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The token alone, without `Bearer`. It is neither kept nor logged.
    pub token: String,
    /// The absolute URL of a request; without it nothing is said of routes, scopes and rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The method of the request at `url`; `GET` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The client certificate that the request comes with, in PEM. Taken to be of the listener's authority and in time,
    /// which TLS finds out before. Without it there is no verdict where one is asked for, or the token is bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
}

impl Question {
    /// The request that the token is for, or what is wrong with it in words.
    pub fn request(&self) -> Result<Option<(Method, Uri)>, String> {
        let Some(url) = &self.url else { return Ok(None) };
        let uri: Uri = url.parse().map_err(|_| format!("'{}' is not a URL.", url.escape_debug()))?;
        if uri.authority().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("The URL must be absolute, such as https://api.example.com/orders/7.".to_owned());
        }
        let method = self.method.as_deref().unwrap_or("GET").parse();
        Ok(Some((method.map_err(|_| "The method is not one.".to_owned())?, uri)))
    }

    /// The first certificate in the PEM, or what is wrong with it in words.
    pub fn certificate(&self) -> Result<Option<ClientCertificate>, String> {
        let Some(pem) = &self.client_certificate else { return Ok(None) };
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "The client certificate is not a certificate in PEM.".to_owned())?;
        let certificate = ClientCertificate::from_der(&der);
        certificate.map(Some).map_err(|_| "The client certificate cannot be read.".to_owned())
    }
}

impl Endpoint for VerifyToken {
    fn path(&self) -> &'static str {
        "/token/verify"
    }

    fn operations(&self) -> Vec<Operation> {
        vec![
            Operation::new(Method::POST, "The verdict on a token, check by check.")
                .takes::<Question>()
                .answers::<Explanation>(StatusCode::OK, "The verdict, whether accepted or refused."),
        ]
    }

    fn answer<'c>(&'c self, call: &'c Call) -> Reply<'c> {
        Box::pin(verify(&self.0, &call.body))
    }
}

async fn verify(in_force: &InForce, body: &[u8]) -> Answer {
    let Ok(question) = serde_json::from_slice::<Question>(body) else {
        let detail = "The body must be a JSON object such as {\"token\": \"...\", \"url\": \"https://...\"}.";
        return problem(StatusCode::BAD_REQUEST, detail);
    };
    let said = question.request().and_then(|request| Ok((request, question.certificate()?)));
    let (request, certificate) = match said {
        Ok(said) => said,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, &detail),
    };
    let certificate = PeerCertificate::said(certificate.as_ref());
    let explainer = in_force.current().explainer.clone();
    json(StatusCode::OK, &explainer.explain(&question.token, request, certificate).await)
}
