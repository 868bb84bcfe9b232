//! Spans: what is recorded of a request for an OpenTelemetry collector.
//!
//! Whether a request is recorded is decided when it begins, since the upstream is told; its spans are made when it
//! ends, from what the access log is told. A request that is not recorded costs that decision and nothing more. Knows
//! nothing of collectors: spans go into a bounded queue, and nobody waits for room in it.

mod queue;
mod request;

use std::cell::RefCell;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::trace::{IdGenerator, SpanId, TRACESTATE, TraceContext};
pub use queue::{SpanQueue, SpanStats, SpanStream, Undelivered};
pub use request::{Finished, Phase, Scheme, UpstreamCall};

/// What is recorded, and of which requests.
#[derive(Clone, Debug)]
pub struct SpanPolicy {
    /// How many of the traces that begin here, in millionths.
    pub sample: u32,
    /// Whether a caller's trace is recorded if the caller records it; if not, `sample` goes for those too.
    pub follow_callers: bool,
    /// Whether the path is recorded.
    pub url_path: bool,
    /// Whether the client's address is recorded.
    pub client_address: bool,
    /// Claims that are recorded.
    pub claims: Vec<String>,
}

/// One core's end: it decides what is recorded and collects spans. Its owner calls [`Self::flush`] every now and then.
#[derive(Debug)]
pub struct Tracer {
    policy: Arc<SpanPolicy>,
    queue: SpanQueue,
    pending: RefCell<Vec<Span>>,
}

/// A request that is recorded.
#[derive(Debug)]
pub struct Recording {
    tracer: Rc<Tracer>,
    /// The span of the call of the upstream.
    call: SpanId,
    trace_state: String,
}

/// Spans are handed over when there are this many.
const BATCH: usize = 128;

/// The longest `tracestate` that is recorded: what everybody must pass on (W3C Trace Context, section 3.3.1.5).
const MAX_TRACE_STATE: usize = 512;

impl Tracer {
    /// A tracer that collects for this queue.
    pub fn new(policy: Arc<SpanPolicy>, queue: SpanQueue) -> Self {
        Self { policy, queue, pending: RefCell::default() }
    }

    /// Whether it was made of the same policy and queue.
    pub fn is_of(&self, policy: &Arc<SpanPolicy>, queue: &SpanQueue) -> bool {
        Arc::ptr_eq(&self.policy, policy) && self.queue.is(queue)
    }

    /// Decides whether the request with this context is recorded, and has the upstream told.
    pub fn begin(
        self: &Rc<Self>,
        trace: &mut TraceContext,
        headers: &HeaderMap,
        ids: &mut IdGenerator,
    ) -> Option<Box<Recording>> {
        if trace.continued() && self.policy.follow_callers {
            if !trace.sampled() {
                return None;
            }
        } else if !takes(self.policy.sample, trace.span()) {
            trace.decide(trace.span(), false);
            return None;
        }
        let call = ids.span_id();
        trace.decide(call, true);
        let trace_state = if trace.continued() { trace_state(headers) } else { String::new() };
        Some(Box::new(Recording { tracer: Rc::clone(self), call, trace_state }))
    }

    /// Hands over what was collected.
    pub fn flush(&self) {
        let pending = mem::take(&mut *self.pending.borrow_mut());
        if !pending.is_empty() {
            self.queue.put(pending);
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Recording {
    /// Makes the spans of the request, which is over.
    pub fn finish(self, finished: &Finished<'_>) {
        let Self { tracer, call, trace_state } = self;
        let is_batch = {
            let mut pending = tracer.pending.borrow_mut();
            request::spans(&tracer.policy, finished, call, &trace_state, &mut pending);
            pending.len() >= BATCH
        };
        if is_batch {
            tracer.flush();
        }
    }
}

/// Whether the trace is among those that are recorded. Goes by the id of our own span, since clients choose those of
/// traces.
fn takes(millionths: u32, span: SpanId) -> bool {
    let share = u128::from(millionths) << 64;
    u128::from(span.bits()) * 1_000_000 < share
}

fn trace_state(headers: &HeaderMap) -> String {
    let mut all = String::new();
    for part in headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()) {
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(part);
    }
    if all.len() > MAX_TRACE_STATE { String::new() } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    struct Begun {
        is_recorded: bool,
        told: Option<String>,
    }

    fn begin(sample: u32, follow_callers: bool, traceparent: Option<&str>) -> Begun {
        let policy =
            SpanPolicy { sample, follow_callers, url_path: true, client_address: true, claims: Vec::new() };
        let (queue, _stream) = SpanQueue::new(512, Arc::default());
        let tracer = Rc::new(Tracer::new(Arc::new(policy), queue));
        let mut headers = HeaderMap::new();
        if let Some(value) = traceparent {
            headers.insert(super::super::trace::TRACEPARENT, value.parse().unwrap());
        }
        let mut ids = IdGenerator::new();
        let mut trace = ids.trace_context(&headers);
        let is_recorded = tracer.begin(&mut trace, &headers, &mut ids).is_some();
        let told = trace.header_parts().map(|parts| String::from_utf8(parts.concat()).unwrap());
        Begun { is_recorded, told }
    }

    const ALL: u32 = 1_000_000;

    #[test]
    fn a_trace_that_begins_here_goes_by_the_share() {
        let recorded = begin(ALL, true, None);
        assert!(recorded.is_recorded && recorded.told.unwrap().ends_with("-01"));
        let not = begin(0, true, None);
        assert!(!not.is_recorded && not.told.unwrap().ends_with("-00"));
    }

    #[test]
    fn a_callers_trace_goes_by_the_caller() {
        let sampled = format!("{PARENT}-01");
        let recorded = begin(0, true, Some(&sampled));
        let told = recorded.told.unwrap();
        assert!(recorded.is_recorded && told.ends_with("-01") && told.starts_with(&sampled[..35]), "{told}");
        assert_ne!(told, sampled, "our span is the parent");
        let not = begin(ALL, true, Some(&format!("{PARENT}-00")));
        assert!(!not.is_recorded);
        assert_eq!(not.told, None, "no span of ours could be a parent");
    }

    #[test]
    fn no_caller_has_its_way_where_callers_are_not_followed() {
        let not = begin(0, false, Some(&format!("{PARENT}-01")));
        assert!(!not.is_recorded);
        let told = not.told.unwrap();
        assert!(told.starts_with(&PARENT[..35]) && told.ends_with("-00"), "{told}");
        assert!(begin(ALL, false, Some(&format!("{PARENT}-00"))).is_recorded);
    }

    #[test]
    fn a_share_is_kept_on_average() {
        let mut ids = IdGenerator::new();
        let taken = (0..100_000).filter(|_| takes(100_000, ids.span_id())).count();
        assert!((9_000..11_000).contains(&taken), "{taken} of 100000");
    }
}
