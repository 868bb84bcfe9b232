//! Puts the gateway as a native sidecar into Kubernetes manifests: `valgate inject`, and the admission webhook.
//!
//! Knows manifests as trees of JSON and changes only what it must, so that fields of any Kubernetes version pass
//! through. It talks to no cluster. Each manifest is first put back to how it was before an earlier injection, then
//! injected, so that doing it twice is doing it once.
//!
//! The one rule that everything here serves: an application with a sidecar must not be reachable without it. Who
//! injects says how its port is closed ([`Lock`]), or says loudly that it stays open.

mod end;
mod lock;
mod network_policy;
mod pod;
mod probes;
mod serve;
mod service;
mod settings;
mod webhook;
mod workload;

pub use serve::serve;
pub use settings::{Bind, Choices, DEFAULT_IMAGE, Lock, LockKind, Settings};
pub use webhook::{Malformed, review};

use serde_json::Value;

use workload::Workload;

/// Why a manifest cannot be injected: what is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Mistake {
    /// Kind and name of the manifest, and the place in it.
    pub place: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Mistake {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// Manifests with the gateway in them.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// Those that were given, in their order, and a network policy for each workload where that is the lock.
    pub documents: Vec<Value>,
    /// What was done and what is left to do, a sentence each.
    pub notes: Vec<String>,
}

/// Injects each workload (Deployment, `StatefulSet`, `DaemonSet`, `ReplicaSet`, Job, `CronJob`, Pod) among the
/// documents, and points the Services that select its pods to the gateway. Other kinds pass unchanged.
///
/// # Errors
/// No workload among them; one that cannot be guarded; a probe that cannot be carried; a policy that opens what is to
/// be closed.
pub fn inject(mut documents: Vec<Value>, settings: &Settings) -> Result<Injected, Mistake> {
    let mut notes = Vec::new();
    let mut closings = Vec::new();
    let mut found = Vec::new();
    for document in &mut documents {
        let Some(mut workload) = Workload::of(document) else { continue };
        pod::inject(&mut workload, settings)?;
        notes.push(format!("{}: the gateway is in, in front of {}", workload.place, settings.ports_text()));
        notes.extend(lock::close(&mut workload, settings, &mut closings)?);
        notes.extend(end::prepare(&mut workload, settings));
        found.push(service::Target::of(&workload, settings));
    }
    if found.is_empty() {
        return Err(Mistake::new(
            "input",
            "holds no Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob or Pod to put the gateway into",
        ));
    }
    for target in &found {
        notes.extend(service::point(&mut documents, target, settings));
    }
    network_policy::add(&mut documents, closings)?;
    Ok(Injected { documents, notes })
}

#[cfg(test)]
mod tests;
