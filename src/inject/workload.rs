//! Finds the pod in a manifest, whatever kind carries it.

use serde_json::{Map, Value, json};

/// The gateway's container. Whoever has one of this name has it from an earlier injection.
pub const SIDECAR: &str = "valgate";

/// A manifest that makes pods.
#[derive(Debug)]
pub struct Workload<'a> {
    /// Its kind and name, for messages.
    pub place: String,
    /// Its name; pods from a generator may have none.
    pub name: String,
    /// Its namespace, where it says one.
    pub namespace: Option<String>,
    /// The labels of its pods.
    pub labels: Map<String, Value>,
    /// Whether its pods end by themselves, as those of a Job do.
    pub ends_by_itself: bool,
    /// The specification of its pods.
    pub spec: &'a mut Map<String, Value>,
}

/// Who serves the guarded ports.
#[derive(Debug)]
pub struct Serving<'a> {
    /// Each container that declares one of them, or the only one.
    pub containers: Vec<&'a mut Map<String, Value>>,
    /// Ports that none of several containers declares.
    pub unknown: Vec<u16>,
}

impl<'a> Workload<'a> {
    /// The workload that this document is, if it is one.
    pub fn of(document: &'a mut Value) -> Option<Self> {
        let kind = document.get("kind")?.as_str()?.to_owned();
        let template = match kind.as_str() {
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => "/spec/template",
            "CronJob" => "/spec/jobTemplate/spec/template",
            "Pod" => "",
            _ => return None,
        };
        let text = |path: &str| document.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let name = text("/metadata/name").or_else(|| text("/metadata/generateName")).unwrap_or_default();
        let namespace = text("/metadata/namespace");
        let pod = document.pointer_mut(template)?;
        let labels = pod.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
        let spec = pod.get_mut("spec")?.as_object_mut()?;
        // A Job's pod comes to the webhook as a Pod; only such pods may have another policy than Always.
        let policy = spec.get("restartPolicy").and_then(Value::as_str);
        let ends_by_itself = kind.ends_with("Job") || policy.is_some_and(|policy| policy != "Always");
        Some(Self { place: format!("{kind} {name}"), name, namespace, labels, ends_by_itself, spec })
    }

    /// The application's containers that run as long as the pod does: native sidecars too, but for the gateway.
    pub fn containers(&mut self) -> impl Iterator<Item = &mut Map<String, Value>> {
        self.running().map(|(_, container)| container)
    }

    /// Every container of the pod, those too that only prepare it.
    pub fn all_containers(&self) -> impl Iterator<Item = &Map<String, Value>> {
        let lists =
            ["containers", "initContainers"].map(|list| self.spec.get(list).and_then(Value::as_array));
        lists.into_iter().flatten().flatten().filter_map(Value::as_object)
    }

    /// The containers that serve these ports.
    pub fn serving(&mut self, ports: &[u16]) -> Serving<'_> {
        let mut unknown = ports.to_vec();
        let mut others = 0;
        for (kind, container) in self.running() {
            unknown.retain(|port| !serves(container, *port));
            others += usize::from(kind == Kind::Main);
        }
        let by_default = others == 1 && !unknown.is_empty();
        if by_default {
            unknown.clear();
        }
        let serving = self.running().filter(|(kind, container)| {
            (by_default && *kind == Kind::Main) || ports.iter().any(|port| serves(container, *port))
        });
        Serving { containers: serving.map(|(_, container)| container).collect(), unknown }
    }

    /// A list of the pod's specification, made where there is none.
    pub fn list(&mut self, name: &str) -> Option<&mut Vec<Value>> {
        list_of(self.spec, name)
    }

    fn running(&mut self) -> impl Iterator<Item = (Kind, &mut Map<String, Value>)> {
        let lists = self.spec.iter_mut().filter_map(|(name, list)| match name.as_str() {
            "containers" => Some((Kind::Main, list)),
            "initContainers" => Some((Kind::Sidecar, list)),
            _ => None,
        });
        lists.flat_map(|(kind, list)| {
            let containers = list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut);
            let running =
                containers.filter(move |container| kind == Kind::Main || is_other_sidecar(container));
            running.map(move |container| (kind, container))
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Main,
    /// An init container that stays.
    Sidecar,
}

fn is_other_sidecar(container: &Map<String, Value>) -> bool {
    container.get("restartPolicy").and_then(Value::as_str) == Some("Always") && name_of(container) != SIDECAR
}

fn serves(container: &Map<String, Value>, port: u16) -> bool {
    declared_ports(container).any(|declared| declared.is_tcp() && declared.number == port)
}

/// A list in an object, made where there is none.
pub fn list_of<'a>(object: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Vec<Value>> {
    let list = object.entry(name).or_insert(Value::Null);
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut()
}

/// A container's name, for messages and paths.
pub fn name_of(container: &Map<String, Value>) -> &str {
    container.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// The port that a number or a name means in this container.
pub fn resolve_port(container: &Map<String, Value>, port: &Value) -> Option<u16> {
    if let Some(number) = port.as_u64() {
        return u16::try_from(number).ok();
    }
    let name = port.as_str()?;
    declared_ports(container).find(|declared| declared.name == Some(name)).map(|declared| declared.number)
}

/// A port that a container declares.
#[derive(Clone, Copy, Debug)]
pub struct DeclaredPort<'a> {
    /// Its number.
    pub number: u16,
    /// Its name, if it has one.
    pub name: Option<&'a str>,
    /// `TCP`, unless it says `UDP` or `SCTP`.
    pub protocol: &'a str,
}

impl DeclaredPort<'_> {
    /// Whether HTTP can be served there.
    pub fn is_tcp(self) -> bool {
        self.protocol == "TCP"
    }
}

/// The ports that a container declares.
pub fn declared_ports(container: &Map<String, Value>) -> impl Iterator<Item = DeclaredPort<'_>> {
    let ports = container.get("ports").and_then(Value::as_array);
    ports.into_iter().flatten().filter_map(|port| {
        let text = |name: &str| port.get(name).and_then(Value::as_str);
        let number = u16::try_from(port.get("containerPort")?.as_u64()?).ok()?;
        Some(DeclaredPort { number, name: text("name"), protocol: text("protocol").unwrap_or("TCP") })
    })
}
