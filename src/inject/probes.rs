//! The kubelet's probes and hooks of an application whose port is closed to it.
//!
//! They come from the node, not from loopback. Each that asks a guarded port is pointed to the gateway's health
//! listener, at a path of its own, which the gateway carries to the application (`valgate run --probe`).

use serde_json::{Map, Value, json};

use super::Mistake;
use super::settings::Settings;
use super::workload::{SIDECAR, Workload, name_of, resolve_port};

/// Where the kubelet's questions stand in a container, and what they are called in paths.
const QUESTIONS: [(&[&str], &str); 5] = [
    (&["startupProbe"], "startup"),
    (&["readinessProbe"], "readiness"),
    (&["livenessProbe"], "liveness"),
    (&["lifecycle", "postStart"], "post-start"),
    (&["lifecycle", "preStop"], "pre-stop"),
];

/// Points the probes of guarded ports to the gateway. The arguments by which it knows them: `PATH=URL`.
pub fn carry(workload: &mut Workload<'_>, settings: &Settings) -> Result<Vec<String>, Mistake> {
    let mut carried = Vec::new();
    let place = workload.place.clone();
    for container in workload.containers() {
        let name = name_of(container).to_owned();
        for (path, question) in QUESTIONS {
            let place = || format!("{place}, container {name}, {}", path.join("."));
            let Some(target) = asked(container, path, &settings.app_ports, &place)? else { continue };
            let own_path = format!("/probes/{name}/{question}");
            let Some(probe) = at(container, path) else { continue };
            let mut http = probe.get("httpGet").and_then(Value::as_object).cloned().unwrap_or_default();
            probe.remove("tcpSocket");
            http.insert("path".to_owned(), json!(own_path));
            http.insert("port".to_owned(), json!(settings.health_port));
            probe.insert("httpGet".to_owned(), Value::Object(http));
            carried.push(format!("{own_path}={target}"));
        }
    }
    Ok(carried)
}

/// Points the probes of an earlier injection back to the application.
pub fn restore(workload: &mut Workload<'_>) {
    let carried = carried_before(workload);
    for container in workload.containers() {
        for (path, _) in QUESTIONS {
            let Some(probe) = at(container, path) else { continue };
            let asked = probe.get("httpGet").and_then(|http| http.get("path")).and_then(Value::as_str);
            let Some((_, target)) = carried.iter().find(|(own_path, _)| Some(own_path.as_str()) == asked)
            else {
                continue;
            };
            let Some((scheme, rest)) = target.split_once("://127.0.0.1:") else { continue };
            let (port, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
            let Ok(port) = port.parse::<u16>() else { continue };
            if scheme == "tcp" {
                probe.remove("httpGet");
                probe.insert("tcpSocket".to_owned(), json!({ "port": port }));
            } else if let Some(http) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
                http.insert("path".to_owned(), json!(path));
                http.insert("port".to_owned(), json!(port));
            }
        }
    }
}

/// What a probe asks of a guarded port.
fn asked(
    container: &Map<String, Value>,
    path: &[&str],
    guarded: &[u16],
    place: &dyn Fn() -> String,
) -> Result<Option<String>, Mistake> {
    let probe = path.iter().try_fold(container, |object, step| object.get(*step)?.as_object());
    let Some(probe) = probe else { return Ok(None) };
    let port_of = |question: &Value| {
        let port = question.get("port").and_then(|port| resolve_port(container, port));
        port.filter(|port| guarded.contains(port))
    };
    if let Some(http) = probe.get("httpGet") {
        let Some(port) = port_of(http) else { return Ok(None) };
        if http.get("scheme").and_then(Value::as_str) == Some("HTTPS") {
            let what = "asks by HTTPS, which the gateway does not carry; the application is on loopback behind it and \
                can answer plain HTTP there";
            return Err(Mistake::new(place(), what));
        }
        let path = http.get("path").and_then(Value::as_str).unwrap_or("/");
        return Ok(Some(format!("http://127.0.0.1:{port}{path}")));
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        return Ok(port_of(tcp).map(|port| format!("tcp://127.0.0.1:{port}")));
    }
    if probe.get("grpc").and_then(port_of).is_some() {
        let what = "asks by gRPC, which cannot be pointed elsewhere; use an `exec` probe, or `tcpSocket`";
        return Err(Mistake::new(place(), what));
    }
    Ok(None)
}

/// The probes that an earlier injection's gateway carries.
fn carried_before(workload: &Workload<'_>) -> Vec<(String, String)> {
    let containers = workload.spec.get("initContainers").and_then(Value::as_array);
    let sidecar = containers
        .into_iter()
        .flatten()
        .find(|container| container.get("name").and_then(Value::as_str) == Some(SIDECAR));
    let arguments = sidecar.and_then(|container| container.get("args")).and_then(Value::as_array);
    arguments
        .into_iter()
        .flatten()
        .filter_map(|argument| {
            let (path, target) = argument.as_str()?.strip_prefix("--probe=")?.split_once('=')?;
            Some((path.to_owned(), target.to_owned()))
        })
        .collect()
}

fn at<'a>(container: &'a mut Map<String, Value>, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    path.iter().try_fold(container, |object, step| object.get_mut(*step)?.as_object_mut())
}
