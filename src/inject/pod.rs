//! The sidecar in a pod's specification: container, volumes, probes.

use serde_json::{Value, json};

use super::settings::Settings;
use super::workload::{SIDECAR, Workload, declared_ports, name_of};
use super::{Mistake, probes};

/// The init container that closes the application's port.
pub const LOCK: &str = "valgate-lock";

/// The name of the gateway's port, to which Services are pointed.
pub const PORT_NAME: &str = "valgate";

const CONFIGURATION: &str = "valgate-configuration";
const STATE: &str = "valgate-state";

/// Puts the gateway in, in place of an earlier one.
pub fn inject(workload: &mut Workload<'_>, settings: &Settings) -> Result<(), Mistake> {
    undo(workload);
    fit(workload, settings)?;
    let carried = probes::carry(workload, settings)?;
    let place = workload.place.clone();
    let odd = |list: &str| Mistake::new(&place, format!("`{list}` of the pod is not a list"));
    let containers = workload.list("initContainers").ok_or_else(|| odd("initContainers"))?;
    containers.insert(0, sidecar(settings, &carried));
    let list = workload.list("volumes").ok_or_else(|| odd("volumes"))?;
    list.extend(volumes(settings));
    Ok(())
}

/// What keeps a sidecar from standing in front of this application.
fn fit(workload: &Workload<'_>, settings: &Settings) -> Result<(), Mistake> {
    let mistake = |what: String| Err(Mistake::new(&workload.place, what));
    if workload.spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        let what = "uses the network of its node (hostNetwork), where loopback is shared with every other process; \
            run the gateway in front of it as a Deployment of its own";
        return mistake(what.to_owned());
    }
    let own = [settings.port, settings.health_port];
    if settings.port == settings.health_port {
        let what = format!(
            "the gateway cannot serve clients and probes at the same port {}; choose two in valgate.yaml and by \
             --port and --health-port",
            settings.port
        );
        return mistake(what);
    }
    // A lock would close the gateway itself.
    if let Some(port) = settings.app_ports.iter().find(|port| own.contains(port)) {
        let what = format!(
            "port {port} cannot be both the application's and the gateway's; where the application has it, choose \
             others for the gateway in valgate.yaml and by --port and --health-port"
        );
        return mistake(what);
    }
    // The gateway runs beside init containers too.
    for container in workload.all_containers() {
        let taken = declared_ports(container).find(|port| port.is_tcp() && own.contains(&port.number));
        if let Some(port) = taken {
            let what = format!(
                "container {} has port {} already, which the gateway needs; choose others in valgate.yaml and by \
                 --port and --health-port",
                name_of(container),
                port.number
            );
            return mistake(what);
        }
    }
    Ok(())
}

/// Takes an earlier injection out.
fn undo(workload: &mut Workload<'_>) {
    probes::restore(workload);
    let ours = |names: &'static [&'static str]| {
        move |item: &Value| {
            !item.get("name").and_then(Value::as_str).is_some_and(|name| names.contains(&name))
        }
    };
    for (list, names) in
        [("initContainers", &[SIDECAR, LOCK] as &[_]), ("volumes", &[CONFIGURATION, STATE] as &[_])]
    {
        if let Some(list) = workload.spec.get_mut(list).and_then(Value::as_array_mut) {
            list.retain(ours(names));
        }
    }
}

fn sidecar(settings: &Settings, carried: &[String]) -> Value {
    let mut arguments = vec!["run".to_owned(), "--config".to_owned(), "/etc/valgate/valgate.yaml".to_owned()];
    arguments.extend(carried.iter().map(|probe| format!("--probe={probe}")));
    json!({
        "name": SIDECAR,
        "image": settings.image,
        "args": arguments,
        // An init container that stays: started before the application, stopped after it, and no reason for a Job
        // to go on.
        "restartPolicy": "Always",
        "ports": [
            { "name": PORT_NAME, "containerPort": settings.port },
            { "name": "valgate-health", "containerPort": settings.health_port },
        ],
        // The application's containers start when this has succeeded: keys and revocations are there by then.
        "startupProbe": {
            "httpGet": { "path": "/readyz", "port": settings.health_port },
            "periodSeconds": 1,
            "failureThreshold": 60,
        },
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": settings.health_port }, "periodSeconds": 5 },
        "livenessProbe": { "httpGet": { "path": "/livez", "port": settings.health_port }, "periodSeconds": 10 },
        "resources": { "requests": { "cpu": "20m", "memory": "32Mi" }, "limits": { "memory": "256Mi" } },
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": [
            { "name": CONFIGURATION, "mountPath": "/etc/valgate", "readOnly": true },
            { "name": STATE, "mountPath": "/var/lib/valgate" },
        ],
    })
}

fn volumes(settings: &Settings) -> [Value; 2] {
    let mut sources = vec![json!({ "configMap": { "name": settings.config_map } })];
    if let Some(secret) = &settings.tls_secret {
        let items = [("tls.crt", "tls/tls.crt"), ("tls.key", "tls/tls.key")]
            .map(|(key, path)| json!({ "key": key, "path": path }));
        sources.push(json!({ "secret": { "name": secret, "items": items } }));
    }
    [
        // One volume, so that configuration and certificate change in one step.
        json!({ "name": CONFIGURATION, "projected": { "sources": sources } }),
        json!({ "name": STATE, "emptyDir": { "sizeLimit": "2Gi" } }),
    ]
}
