//! What goes on beside the requests for as long as an upstream is in force: names resolved, health checked, counts
//! shown. An upstream that a reload leaves as it is keeps all of it, and so what is known of its health.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::upstream_metrics;
use crate::clock::Clock;
use crate::telemetry::metrics::{Metrics, Registration};
use crate::upstream::{Upstream, check_health, resolve_names};

/// The attendance on all upstreams in force.
#[derive(Debug, Default)]
pub struct Attendance(Vec<Attended>);

/// Ends when this is dropped.
#[derive(Debug)]
struct Attended {
    upstream: Arc<Upstream>,
    _tasks: JoinSet<()>,
    _registrations: Vec<Registration>,
}

impl Attendance {
    /// From now on attends to these upstreams, and to no others.
    pub fn turn_to(&mut self, upstreams: &[Arc<Upstream>], metrics: &Metrics, clock: &Clock) {
        let mut before = std::mem::take(&mut self.0);
        for upstream in upstreams {
            let same = before.iter().position(|attended| Arc::ptr_eq(&attended.upstream, upstream));
            self.0.push(match same {
                Some(place) => before.swap_remove(place),
                None => attend(upstream, metrics, clock),
            });
        }
    }
}

fn attend(upstream: &Arc<Upstream>, metrics: &Metrics, clock: &Clock) -> Attended {
    let mut tasks = JoinSet::new();
    tasks.spawn(resolve_names(Arc::clone(upstream)));
    tasks.spawn(check_health(Arc::clone(upstream)));
    Attended {
        upstream: Arc::clone(upstream),
        _tasks: tasks,
        _registrations: upstream_metrics::register(upstream, metrics, clock),
    }
}
