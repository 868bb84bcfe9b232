//! Closes the application's own port to everyone but the gateway in the same pod.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::Mistake;
use super::network_policy::Closing;
use super::pod::LOCK;
use super::settings::{Bind, Lock, Settings, ports_text};
use super::workload::{Workload, list_of, name_of};

/// Closes the ports as the settings say; a policy, where that is how, is added to `closings`. What is to be told.
pub fn close(
    workload: &mut Workload<'_>,
    settings: &Settings,
    closings: &mut Vec<Closing>,
) -> Result<Option<String>, Mistake> {
    let place = workload.place.clone();
    let note = match &settings.lock {
        Lock::Loopback(bind) => {
            let names = move_to_loopback(workload, settings, bind)?;
            let how = match bind {
                Bind::Environment { name, value } => format!("{name}={value} says so"),
                Bind::Argument(argument) => format!("{argument} says so"),
                Bind::ByItself => "you say that it does so by itself".to_owned(),
            };
            Some(format!(
                "{place}: the application must listen on loopback only, in {}; {how}",
                names.join(", ")
            ))
        }
        Lock::NetworkPolicy => {
            closings.push(Closing::of(workload, settings)?);
            Some(format!(
                "{place}: a NetworkPolicy closes {}; see that your network plug-in enforces policies, and that no \
                 other policy in the cluster opens what this one closes",
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

/// Tells every container that serves a guarded port. Their names.
fn move_to_loopback(
    workload: &mut Workload<'_>,
    settings: &Settings,
    bind: &Bind,
) -> Result<Vec<String>, Mistake> {
    let place = workload.place.clone();
    let serving = workload.serving(&settings.app_ports);
    if !serving.unknown.is_empty() {
        let unknown = ports_text(&serving.unknown);
        let names: Vec<_> = workload.containers().map(|container| name_of(container).to_owned()).collect();
        let what = format!(
            "which of its containers ({}) serves {unknown}? Declare it in that container's `ports`",
            names.join(", ")
        );
        return Err(Mistake::new(place, what));
    }
    let mut names = Vec::new();
    for container in serving.containers {
        let name = name_of(container).to_owned();
        tell(container, bind).map_err(|what| Mistake::new(format!("{place}, container {name}"), what))?;
        names.push(name);
    }
    Ok(names)
}

fn tell(container: &mut Map<String, Value>, bind: &Bind) -> Result<(), String> {
    let (list, item) = match bind {
        Bind::ByItself => return Ok(()),
        Bind::Environment { name, value } => ("env", json!({ "name": name, "value": value })),
        Bind::Argument(argument) => {
            if !["args", "command"].iter().any(|list| says_something(container.get(*list))) {
                return Err(format!(
                    "has neither `args` nor `command`: {argument} alone would replace the arguments of its image; \
                     write those as its `args`, or use bind-env"
                ));
            }
            ("args", json!(argument))
        }
    };
    let items = list_of(container, list).ok_or_else(|| format!("`{list}` is not a list"))?;
    if let Bind::Environment { name, .. } = bind {
        items.retain(|item| item.get("name").and_then(Value::as_str) != Some(name));
    }
    if !items.contains(&item) {
        items.push(item);
    }
    Ok(())
}

/// Kubernetes takes an empty list for none.
fn says_something(words: Option<&Value>) -> bool {
    words.and_then(Value::as_array).is_some_and(|words| !words.is_empty())
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
