//! The answer of a mutating admission webhook (`admission.k8s.io/v1`): what `valgate inject` would do to one object.
//!
//! Pure: a review in, a review out. Pods with the annotation `valgate/inject: "true"` get the gateway; Services with
//! `valgate/app-port` are pointed to it. Whatever else comes passes as it is. An object that asks for the gateway and
//! cannot have it is refused, since it would run unprotected.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
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

/// Answers a review.
pub fn review(body: &[u8]) -> Result<Value, Malformed> {
    let Review { version, request: Request { uid, object } } =
        serde_json::from_slice(body).map_err(|_| Malformed)?;
    if version != VERSION {
        return Err(Malformed);
    }
    let response = match changed(&object) {
        Ok(None) => json!({ "uid": uid, "allowed": true }),
        Ok(Some((after, notes))) => json!({
            "uid": uid,
            "allowed": true,
            "patchType": "JSONPatch",
            "patch": STANDARD.encode(patch(&object, &after).to_string()),
            "warnings": notes,
        }),
        Err(why) => json!({
            "uid": uid,
            "allowed": false,
            "status": { "code": 422, "reason": "Invalid", "message": format!("valgate: {why}") },
        }),
    };
    Ok(json!({ "apiVersion": VERSION, "kind": "AdmissionReview", "response": response }))
}

const VERSION: &str = "admission.k8s.io/v1";

/// The object as it should be, if it asks for a change, and what to tell who made it.
fn changed(object: &Value) -> Result<Option<(Value, Vec<String>)>, String> {
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
            let mut injected =
                inject(vec![object.clone()], &settings).map_err(|mistake| mistake.to_string())?;
            // Services are other objects, and have annotations of their own.
            injected.notes.retain(|note| note.contains("WARNING"));
            Ok(injected.documents.pop().map(|after| (after, injected.notes)))
        }
        Some("Service") if annotation("app-port").is_some() => {
            let mut choices = Choices::of_annotations(annotations)?;
            // How a pod's port is closed is the pod's affair.
            choices.insecure_leave_open = choices.lock.is_none();
            let settings = Settings::try_from(choices)?;
            let guarded: Vec<_> = settings.app_ports.iter().map(|port| json!(port)).collect();
            let mut after = object.clone();
            let ports = after.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
            let mut any = false;
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                any |= service::point_port(port, &guarded, &settings);
            }
            Ok(any.then_some((after, Vec::new())))
        }
        _ => Ok(None),
    }
}

/// RFC 6902: one `add`, which replaces what is there, for each field of the specification that changed.
fn patch(before: &Value, after: &Value) -> Value {
    let spec = after.get("spec").and_then(Value::as_object);
    let changes = spec.into_iter().flatten().filter_map(|(name, value)| {
        let path = format!("/spec/{name}");
        (before.pointer(&path) != Some(value)).then(|| json!({ "op": "add", "path": path, "value": value }))
    });
    changes.collect()
}

#[cfg(test)]
mod tests;
