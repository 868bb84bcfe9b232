//! Finds the pod in a manifest, whatever kind carries it.

use serde_json::{Map, Value, json};

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
    /// The specification of its pods.
    pub spec: &'a mut Map<String, Value>,
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
        Some(Self { place: format!("{kind} {name}"), name, namespace, labels, spec })
    }

    /// The application's containers.
    pub fn containers(&mut self) -> impl Iterator<Item = &mut Map<String, Value>> {
        let list = self.spec.get_mut("containers").and_then(Value::as_array_mut);
        list.into_iter().flatten().filter_map(Value::as_object_mut)
    }

    /// A list of the pod's specification, made where there is none.
    pub fn list(&mut self, name: &str) -> Option<&mut Vec<Value>> {
        self.spec.entry(name).or_insert_with(|| json!([])).as_array_mut()
    }
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
    declared_ports(container).find(|(_, declared)| *declared == Some(name)).map(|(number, _)| number)
}

/// The ports that a container declares, with their names.
pub fn declared_ports(container: &Map<String, Value>) -> impl Iterator<Item = (u16, Option<&str>)> {
    let ports = container.get("ports").and_then(Value::as_array);
    ports.into_iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.get("containerPort")?.as_u64()?).ok()?;
        Some((number, port.get("name").and_then(Value::as_str)))
    })
}
