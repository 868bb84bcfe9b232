//! Closes the application's own port to everyone but the gateway in the same pod.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::Mistake;
use super::pod::LOCK;
use super::settings::{Bind, Lock, Settings};
use super::workload::{Workload, declared_ports, name_of};

/// Closes the ports as the settings say; a policy, where that is how, is added to `policies`. What is to be told.
pub fn close(
    workload: &mut Workload<'_>,
    settings: &Settings,
    policies: &mut Vec<Value>,
) -> Result<Option<String>, Mistake> {
    let place = workload.place.clone();
    let note = match &settings.lock {
        Lock::Loopback(bind) => {
            let container = serving(workload, settings)?;
            bind_to_loopback(container, bind);
            let how = match bind {
                Bind::Environment { name, value } => format!("{name}={value} tells it to"),
                Bind::Argument(argument) => format!("{argument} tells it to"),
                Bind::ByItself => "you say that it does so by itself".to_owned(),
            };
            Some(format!("{place}: the application must listen on loopback only; {how}"))
        }
        Lock::NetworkPolicy => {
            policies.push(policy(workload, settings)?);
            Some(format!(
                "{place}: a NetworkPolicy closes {}; see that your network plug-in enforces policies",
                settings.ports_text()
            ))
        }
        Lock::Nftables { image } => {
            let rule = packet_filter(image, &settings.app_ports);
            let containers = workload.list("initContainers");
            let odd = || Mistake::new(&place, "`initContainers` of the pod is not a list");
            containers.ok_or_else(odd)?.insert(0, rule);
            None
        }
        Lock::Open => Some(format!(
            "{place}: WARNING: {} stays open; whoever reaches the pod can walk around the gateway",
            settings.ports_text()
        )),
    };
    Ok(note)
}

/// The container that serves the guarded port: who declares it, or the only one.
fn serving<'a>(
    workload: &'a mut Workload<'_>,
    settings: &Settings,
) -> Result<&'a mut Map<String, Value>, Mistake> {
    let place = workload.place.clone();
    let mut containers: Vec<_> = workload.containers().collect();
    let declares = |container: &Map<String, Value>| {
        declared_ports(container).any(|(port, _)| settings.app_ports.contains(&port))
    };
    let found = containers.iter().position(|container| declares(container));
    let found = found.or((containers.len() == 1).then_some(0));
    match found {
        Some(found) if found < containers.len() => Ok(containers.swap_remove(found)),
        _ => {
            let names: Vec<_> = containers.iter().map(|container| name_of(container)).collect();
            let what = format!(
                "which of its containers ({}) serves {}? Declare it in that container's `ports`",
                names.join(", "),
                settings.ports_text()
            );
            Err(Mistake::new(place, what))
        }
    }
}

fn bind_to_loopback(container: &mut Map<String, Value>, bind: &Bind) {
    let (list, item) = match bind {
        Bind::ByItself => return,
        Bind::Environment { name, value } => ("env", json!({ "name": name, "value": value })),
        Bind::Argument(argument) => ("args", json!(argument)),
    };
    let Some(items) = container.entry(list).or_insert_with(|| json!([])).as_array_mut() else { return };
    if let Bind::Environment { name, .. } = bind {
        items.retain(|item| item.get("name").and_then(Value::as_str) != Some(name));
    }
    if !items.contains(&item) {
        items.push(item);
    }
}

/// What reaches the pod from outside reaches the gateway, its health listener, and declared ports that nobody asked
/// to close.
fn policy(workload: &mut Workload<'_>, settings: &Settings) -> Result<Value, Mistake> {
    if workload.labels.is_empty() {
        let what = "its pods have no labels by which a NetworkPolicy could select them; add one";
        return Err(Mistake::new(&workload.place, what));
    }
    let mut open = BTreeSet::from([settings.port, settings.health_port]);
    for container in workload.containers() {
        open.extend(declared_ports(container).map(|(port, _)| port));
    }
    let ports: Vec<_> = open
        .iter()
        .filter(|port| !settings.app_ports.contains(port))
        .map(|port| json!({ "port": port, "protocol": "TCP" }))
        .collect();
    let mut policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": format!("{}-only-through-valgate", workload.name.trim_end_matches('-')) },
        "spec": {
            "podSelector": { "matchLabels": workload.labels },
            "policyTypes": ["Ingress"],
            "ingress": [{ "ports": ports }],
        },
    });
    if let (Some(namespace), Some(metadata)) =
        (&workload.namespace, policy.get_mut("metadata").and_then(Value::as_object_mut))
    {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    Ok(policy)
}

/// The rule stands before anything else of the pod runs, and outlives the container that set it.
fn packet_filter(image: &str, ports: &[u16]) -> Value {
    let mut set = String::new();
    for (place, port) in ports.iter().enumerate() {
        _ = write!(set, "{}{port}", if place == 0 { "" } else { ", " });
    }
    let rules = format!(
        "table inet valgate {{ chain input {{ type filter hook input priority filter; iif lo accept; \
         tcp dport {{ {set} }} reject with tcp reset; }}; }};"
    );
    json!({
        "name": LOCK,
        "image": image,
        "command": ["nft", rules],
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "32Mi" } },
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}
