//! Points Services from the application's port to the gateway's.

use serde_json::{Map, Value, json};

use super::pod::PORT_NAME;
use super::settings::Settings;
use super::workload::{Workload, declared_ports};

/// The pods of one workload, as Services see them.
#[derive(Debug)]
pub struct Target {
    place: String,
    namespace: Option<String>,
    labels: Map<String, Value>,
    /// Numbers and names of the guarded ports.
    ports: Vec<Value>,
    expects_service: bool,
}

impl Target {
    /// The pods of this workload.
    pub fn of(workload: &Workload<'_>, settings: &Settings) -> Self {
        let mut ports: Vec<_> = settings.app_ports.iter().map(|port| json!(port)).collect();
        for container in workload.all_containers() {
            let guarded = declared_ports(container).filter(|port| settings.app_ports.contains(&port.number));
            ports.extend(guarded.filter_map(|port| port.name.map(|name| json!(name))));
        }
        Self {
            place: workload.place.clone(),
            namespace: workload.namespace.clone(),
            labels: workload.labels.clone(),
            ports,
            expects_service: !workload.ends_by_itself,
        }
    }

    fn is_selected_by(&self, service: &Value) -> bool {
        let namespace = service.pointer("/metadata/namespace").and_then(Value::as_str);
        let selector = service.pointer("/spec/selector").and_then(Value::as_object);
        service.get("kind").and_then(Value::as_str) == Some("Service")
            && (namespace.is_none() || self.namespace.is_none() || namespace == self.namespace.as_deref())
            && selector.is_some_and(|selector| {
                !selector.is_empty()
                    && selector.iter().all(|(key, value)| self.labels.get(key) == Some(value))
            })
    }
}

/// Points the Services among the documents that select these pods. What was done.
pub fn point(documents: &mut [Value], target: &Target, settings: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    let mut selected = false;
    for service in documents.iter_mut().filter(|document| target.is_selected_by(document)) {
        selected = true;
        let name = service.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let ports = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
            if point_port(port, &target.ports, settings) {
                let number = port.get("port").cloned().unwrap_or_default();
                notes.push(format!("Service {name}: port {number} now leads to the gateway"));
            }
        }
    }
    if !selected && target.expects_service {
        notes.push(format!(
            "{}: no Service here selects its pods; point yours to targetPort: {PORT_NAME}",
            target.place
        ));
    }
    notes
}

/// Points one port, if it leads to a guarded one.
pub fn point_port(port: &mut Map<String, Value>, guarded: &[Value], settings: &Settings) -> bool {
    let leads_to = port.get("targetPort").or_else(|| port.get("port"));
    if !leads_to.is_some_and(|leads_to| guarded.contains(leads_to)) {
        return false;
    }
    port.insert("targetPort".to_owned(), json!(PORT_NAME));
    if settings.tls_secret.is_some() {
        port.insert("appProtocol".to_owned(), json!("https"));
    }
    true
}
