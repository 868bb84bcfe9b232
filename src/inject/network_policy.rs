//! The `NetworkPolicy` that closes a workload's ports, and others among the documents that would open them again.
//!
//! Policies add up: what one of them admits, none can refuse. Where it cannot be told whether another admits a
//! guarded port, it counts as if it did.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Mistake;
use super::settings::{Settings, ports_text};
use super::workload::{Workload, declared_ports};

/// The policy of one workload, and what it closes.
#[derive(Debug)]
pub struct Closing {
    policy: Value,
    place: String,
    namespace: Option<String>,
    labels: Map<String, Value>,
    guarded: Vec<u16>,
    /// What a policy may call them.
    names: Vec<String>,
}

impl Closing {
    /// What closes the guarded ports of this workload.
    ///
    /// # Errors
    /// The workload's pods have no labels.
    pub fn of(workload: &mut Workload<'_>, settings: &Settings) -> Result<Self, Mistake> {
        if workload.labels.is_empty() {
            let what = "its pods have no labels by which a NetworkPolicy could select them; add one";
            return Err(Mistake::new(&workload.place, what));
        }
        let policy = policy(workload, settings);
        let declared = workload.all_containers().flat_map(declared_ports);
        let guarded = declared.filter(|port| settings.app_ports.contains(&port.number));
        let names = guarded.filter_map(|port| port.name.map(str::to_owned)).collect();
        Ok(Self {
            policy,
            place: workload.place.clone(),
            namespace: workload.namespace.clone(),
            labels: workload.labels.clone(),
            guarded: settings.app_ports.clone(),
            names,
        })
    }

    /// Whether this document is the policy, from an earlier injection.
    fn was(&self, document: &Value) -> bool {
        ["/kind", "/metadata/name", "/metadata/namespace"]
            .iter()
            .all(|path| document.pointer(path) == self.policy.pointer(path))
    }
}

/// Adds the policies to the documents, in place of earlier ones.
///
/// # Errors
/// Another policy among the documents admits what one of these closes, or may.
pub fn add(documents: &mut Vec<Value>, closings: Vec<Closing>) -> Result<(), Mistake> {
    for document in documents.iter().filter(|document| !closings.iter().any(|closing| closing.was(document)))
    {
        if let Some(what) = closings.iter().find_map(|closing| opens(document, closing)) {
            let text = |path| document.pointer(path).and_then(Value::as_str).unwrap_or_default();
            return Err(Mistake::new(format!("{} {}", text("/kind"), text("/metadata/name")), what));
        }
    }
    for closing in closings {
        match documents.iter_mut().find(|document| closing.was(document)) {
            Some(former) => *former = closing.policy,
            None => documents.push(closing.policy),
        }
    }
    Ok(())
}

/// What reaches the pod from outside reaches the gateway, its health listener, and declared ports that nobody asked
/// to close.
fn policy(workload: &mut Workload<'_>, settings: &Settings) -> Value {
    let mut open = BTreeSet::from([settings.port, settings.health_port].map(|port| (port, "TCP".to_owned())));
    for container in workload.containers() {
        open.extend(declared_ports(container).map(|port| (port.number, port.protocol.to_owned())));
    }
    let ports: Vec<_> = open
        .iter()
        .filter(|(port, _)| !settings.app_ports.contains(port))
        .map(|(port, protocol)| json!({ "port": port, "protocol": protocol }))
        .collect();
    let mut policy = json!({
        "apiVersion": VERSION,
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
    policy
}

const VERSION: &str = "networking.k8s.io/v1";

/// How this document opens what is to be closed, if it does.
fn opens(document: &Value, closing: &Closing) -> Option<String> {
    // CiliumNetworkPolicy, AdminNetworkPolicy and their like too.
    if !document.get("kind")?.as_str()?.ends_with("NetworkPolicy") {
        return None;
    }
    let namespace = document.pointer("/metadata/namespace").and_then(Value::as_str);
    if namespace.is_some() && closing.namespace.is_some() && namespace != closing.namespace.as_deref() {
        return None;
    }
    let ports = ports_text(&closing.guarded);
    if document.get("apiVersion").and_then(Value::as_str) != Some(VERSION) {
        return Some(format!(
            "is no policy of {VERSION}, so it cannot be told whether it admits {ports} of {}, and policies add up; \
             see that it does not, and keep it in a file of its own, or choose another lock",
            closing.place
        ));
    }
    let selector = document.pointer("/spec/podSelector").and_then(Value::as_object);
    (may_select(selector, &closing.labels) && admits(document, closing)).then(|| {
        format!(
            "admits {ports} of {}, and policies add up, so that no other can close it; leave it out of `ingress` \
             there, or choose another lock",
            closing.place
        )
    })
}

/// Whether pods with these labels, and what labels the cluster may add, may be selected.
fn may_select(selector: Option<&Map<String, Value>>, labels: &Map<String, Value>) -> bool {
    let Some(selector) = selector else { return true };
    let is = |key: &str, wanted: &Value| labels.get(key).map_or(is_added_later(key), |value| value == wanted);
    let equal = selector.get("matchLabels").and_then(Value::as_object);
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    equal.is_none_or(|equal| equal.iter().all(|(key, value)| is(key, value)))
        && expressions.is_none_or(|list| list.iter().all(|expression| may_hold(expression, labels)))
}

fn may_hold(expression: &Value, labels: &Map<String, Value>) -> bool {
    let text = |name: &str| expression.get(name).and_then(Value::as_str);
    let Some(key) = text("key") else { return true };
    let Some(value) = labels.get(key) else {
        return is_added_later(key) || !matches!(text("operator"), Some("In" | "Exists"));
    };
    let is_listed = || {
        let values = expression.get("values").and_then(Value::as_array);
        values.is_some_and(|values| values.contains(value))
    };
    match text("operator") {
        Some("In") => is_listed(),
        Some("NotIn") => !is_listed(),
        Some("DoesNotExist") => false,
        _ => true,
    }
}

/// Labels that controllers give to the pods that they make.
fn is_added_later(key: &str) -> bool {
    const NAMES: [&str; 5] = [
        "pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "job-name",
        "controller-uid",
    ];
    const GROUPS: [&str; 3] = ["apps.kubernetes.io/", "batch.kubernetes.io/", "statefulset.kubernetes.io/"];
    NAMES.contains(&key) || GROUPS.iter().any(|group| key.starts_with(group))
}

/// Whether the policy lets anyone to a guarded port, by any protocol: whom does not matter, since the gateway in the
/// same pod needs no policy.
fn admits(policy: &Value, closing: &Closing) -> bool {
    let list = |path: &str| policy.pointer(path).and_then(Value::as_array);
    let types = list("/spec/policyTypes").filter(|types| !types.is_empty());
    if types.is_some_and(|types| !types.contains(&json!("Ingress"))) {
        return false;
    }
    let rules = list("/spec/ingress");
    rules.into_iter().flatten().any(|rule| {
        let ports = rule.get("ports").and_then(Value::as_array).filter(|ports| !ports.is_empty());
        ports.is_none_or(|ports| ports.iter().any(|port| covers(port, closing)))
    })
}

fn covers(port: &Value, closing: &Closing) -> bool {
    let number = |name: &str| port.get(name).and_then(Value::as_u64);
    match port.get("port") {
        Some(Value::Number(_)) => {
            let first = number("port").unwrap_or_default();
            let last = number("endPort").unwrap_or(first);
            closing.guarded.iter().any(|guarded| (first..=last).contains(&u64::from(*guarded)))
        }
        Some(Value::String(name)) => closing.names.contains(name),
        // Every port.
        _ => true,
    }
}

#[cfg(test)]
mod tests;
