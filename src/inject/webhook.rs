//! The answer of a mutating admission webhook (`admission.k8s.io/v1`): what `valgate inject` would do to one object.
//!
//! Pure: a review in, a review out. Pods with the annotation `valgate/inject: "true"` get the gateway; Services with
//! `valgate/app-port` are pointed to it. Whatever else comes passes as it is. An object that asks for the gateway and
//! cannot have it is refused, since it would run unprotected.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::settings::{Choices, LockKind, PREFIX, Settings};
use super::{inject, service};

/// A body that is no review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an AdmissionReview of admission.k8s.io/v1 with a request")]
pub struct Malformed;

/// What is read of a review; the rest is not kept, since it is as large.
#[derive(Deserialize)]
struct Review {
    #[serde(rename = "apiVersion")]
    version: String,
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    /// Null where something is deleted.
    #[serde(default)]
    object: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
}

/// RFC 6902.
#[derive(Serialize)]
struct Operation {
    op: &'static str,
    path: String,
    value: Value,
}

/// Answers a review, in JSON.
pub fn review(body: &[u8]) -> Result<String, Malformed> {
    let Review { version, request: Request { uid, object } } =
        serde_json::from_slice(body).map_err(|_| Malformed)?;
    if version != VERSION {
        return Err(Malformed);
    }
    let response = match changed(object) {
        Ok(None) => Response { uid, allowed: true, ..Response::default() },
        Ok(Some(Change { operations, warnings })) => {
            let patch = serde_json::to_vec(&operations).map_err(|_| Malformed)?;
            // Each of them is as large as the review.
            drop(operations);
            Response {
                uid,
                allowed: true,
                patch_type: Some("JSONPatch"),
                patch: Some(STANDARD.encode(patch)),
                warnings,
                status: None,
            }
        }
        Err(why) => {
            let status = json!({ "code": 422, "reason": "Invalid", "message": format!("valgate: {why}") });
            Response { uid, status: Some(status), ..Response::default() }
        }
    };
    let answer = Answer { api_version: VERSION, kind: "AdmissionReview", response };
    serde_json::to_string(&answer).map_err(|_| Malformed)
}

const VERSION: &str = "admission.k8s.io/v1";

/// What makes of an object what it asks for.
struct Change {
    operations: Vec<Operation>,
    /// For who made the object.
    warnings: Vec<String>,
}

/// What is to be changed, if the object asks for it.
fn changed(mut object: Value) -> Result<Option<Change>, String> {
    let Some(annotations) = object.pointer("/metadata/annotations").and_then(Value::as_object) else {
        return Ok(None);
    };
    let annotation = |name: &str| annotations.get(&format!("{PREFIX}{name}")).and_then(Value::as_str);
    match object.get("kind").and_then(Value::as_str) {
        Some("Pod") if annotation("inject") == Some("true") => {
            let choices = Choices::of_annotations(annotations)?;
            if choices.lock == Some(LockKind::NetworkPolicy) {
                return Err("a webhook cannot make a NetworkPolicy; make it by `valgate inject --lock \
                    network-policy`, and say lock loopback or nftables here"
                    .to_owned());
            }
            let settings = Settings::try_from(choices)?;
            let mut injected = inject(vec![object], &settings).map_err(|mistake| mistake.to_string())?;
            // Services are other objects, and have annotations of their own.
            injected.notes.retain(|note| note.contains("WARNING"));
            let operations =
                injected.documents.pop().map(|pod| replacing(pod, &INJECTED)).unwrap_or_default();
            Ok(Some(Change { operations, warnings: injected.notes }))
        }
        Some("Service") if annotation("app-port").is_some() => {
            let mut choices = Choices::of_annotations(annotations)?;
            // How a pod's port is closed is the pod's affair.
            choices.insecure_leave_open = choices.lock.is_none();
            let settings = Settings::try_from(choices)?;
            let guarded: Vec<_> = settings.app_ports.iter().map(|port| json!(port)).collect();
            let ports = object.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
            let mut any = false;
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                any |= service::point_port(port, &guarded, &settings);
            }
            Ok(any.then(|| Change { operations: replacing(object, &["ports"]), warnings: Vec::new() }))
        }
        _ => Ok(None),
    }
}

/// The fields of a pod's specification that an injection touches.
const INJECTED: [&str; 4] = ["containers", "initContainers", "terminationGracePeriodSeconds", "volumes"];

/// Puts these fields of the specification in place of what is there, which is what `add` does.
fn replacing(mut object: Value, fields: &[&str]) -> Vec<Operation> {
    let mut spec = object.get_mut("spec").and_then(Value::as_object_mut);
    let operations = fields.iter().filter_map(|field| {
        let value = spec.as_mut()?.remove(*field)?;
        Some(Operation { op: "add", path: format!("/spec/{field}"), value })
    });
    operations.collect()
}

#[cfg(test)]
mod tests;
