//! The end of a pod.
//!
//! The kubelet ends the application first and the gateway after it, while requests still come until every proxy of
//! the cluster has heard that the pod goes. So the application is made to serve on for that moment, and the pod gets
//! the time that all of this takes.

use serde_json::{Map, Value, json};

use super::settings::{Settings, ports_text};
use super::workload::Workload;

/// Changes the pod so that it ends without losing requests. What is to be told.
pub fn prepare(workload: &mut Workload<'_>, settings: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    let place = workload.place.clone();
    // What ends by itself has nobody to serve by then.
    if !workload.ends_by_itself {
        let serving = workload.serving(&settings.app_ports);
        for container in serving.containers {
            serve_on(container);
        }
        if !serving.unknown.is_empty() {
            notes.push(format!(
                "{place}: no container declares {}; give the one that serves it a preStop hook that sleeps for \
                 {SERVE_ON} seconds, or requests are lost when a pod ends",
                ports_text(&serving.unknown)
            ));
        }
    }
    let former = workload.spec.get(PERIOD).and_then(Value::as_u64);
    if former.is_none_or(|former| former < GRACE) {
        workload.spec.insert(PERIOD.to_owned(), json!(GRACE));
        if let Some(former) = former {
            notes.push(format!(
                "{place}: {PERIOD} is {GRACE} now, no longer {former}; the gateway drains in it too"
            ));
        }
    }
    notes
}

/// By a hook of Kubernetes itself (1.30), which takes no program in the application's image.
fn serve_on(container: &mut Map<String, Value>) {
    let lifecycle = container.entry("lifecycle").or_insert(Value::Null);
    if lifecycle.is_null() {
        *lifecycle = json!({});
    }
    let Some(hooks) = lifecycle.as_object_mut() else { return };
    if hooks.get("preStop").is_none_or(Value::is_null) {
        hooks.insert("preStop".to_owned(), json!({ "sleep": { "seconds": SERVE_ON } }));
    }
}

const PERIOD: &str = "terminationGracePeriodSeconds";

/// Seconds; in most clusters each proxy has heard of it well before.
const SERVE_ON: u64 = 5;

/// Seconds: [`SERVE_ON`], 10 for the application's own end, and the 30 that the gateway drains for unless configured
/// otherwise. `deploy/kubernetes` has the same.
const GRACE: u64 = 45;
