//! One core's way to one upstream: which endpoint a request goes to, and whether it goes to another one after that.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::attempt::{Attempt, Failed, MayRepeat};
use super::body::{BodyProgress, RequestBody, UpstreamBody};
use super::budget::Budget;
use super::error::UpstreamError;
use super::head::{self, Sending, is_idempotent, with_framing};
use super::lane::{Chooser, Lane, Lanes, OnLane};
use super::multiplexed::{OnStream, Waiting};
use super::pool::EndpointPool;
use super::service::{Admission, Upstream};
use super::settings::Protocol;
use super::stats::Failure;
use crate::clock::Clock;

/// One core's way to one upstream.
#[derive(Debug)]
pub struct Client {
    upstream: Arc<Upstream>,
    lanes: RefCell<Rc<Lanes>>,
    chooser: Chooser,
    budget: Budget,
    /// This core's share of `limits.connections`.
    slots: Option<Arc<Semaphore>>,
    waiting: Cell<usize>,
    clock: Clock,
}

/// A request on its way, in origin-form with its `Host` set.
#[derive(Debug)]
pub struct Outgoing {
    /// The request.
    pub request: Box<Request<RequestBody>>,
    /// How far its body has come.
    pub progress: Rc<BodyProgress>,
    /// Whether the endpoint's own `Host` takes the place of the one that is set.
    pub own_host: bool,
    /// Whether it asks to switch protocols.
    pub is_upgrade: bool,
    /// How long its answer is waited for.
    pub timeouts: AnswerTimeouts,
}

/// How long one request's answer may take.
#[derive(Clone, Copy, Debug)]
pub struct AnswerTimeouts {
    /// From the end of the request to the first byte.
    pub response: Duration,
    /// From sending the request to the last byte, all attempts together; `None` for as long as it takes. Whoever sends
    /// the request sees to it.
    pub total: Option<Duration>,
}

/// What an exchange keeps busy until this is dropped.
#[derive(Debug)]
pub struct InUse {
    _lane: OnLane,
    _stream: Option<StreamInUse>,
    _slot: Option<OwnedSemaphorePermit>,
    _admission: Option<Admission>,
}

/// A stream of an HTTP/2 connection. It is free when both the answer and the request's body have come to their end.
#[derive(Debug)]
struct StreamInUse {
    stream: Option<OnStream>,
    progress: Rc<BodyProgress>,
}

impl Drop for StreamInUse {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.progress.outlast(stream);
        }
    }
}

impl Client {
    /// A client without connections yet, on one of this many cores.
    pub fn new(upstream: Arc<Upstream>, clock: &Clock, cores: usize) -> Self {
        let settings = &upstream.settings;
        let slots =
            settings.limits.connections.map(|most| Arc::new(Semaphore::new(most.div_ceil(cores.max(1)))));
        let chooser = Chooser::new(settings.balancing, clock.clone());
        let budget = Budget::new(settings.retries.budget_percent, settings.retries.budget_min);
        let lanes = RefCell::new(Rc::new(make_lanes(&upstream, &[], clock)));
        Self { upstream, lanes, chooser, budget, slots, waiting: Cell::new(0), clock: clock.clone() }
    }

    /// The upstream.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Sends a request and waits for the head of the response. `lane` becomes the one that it went to, the last if
    /// it went to several.
    pub async fn send(
        &self,
        Outgoing { request, progress, own_host, is_upgrade, timeouts }: Outgoing,
        lane: &mut Option<Rc<Lane>>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let admission = self.admit()?;
        self.budget.earn();
        let mut request = with_framing(request);
        let lanes = self.lanes();
        let mut tried: Vec<Rc<Lane>> = Vec::new();
        let mut next = self.chooser.choose(&lanes, &tried).ok_or_else(|| self.no_healthy_endpoint())?;
        loop {
            let current = Rc::clone(lane.insert(next));
            if own_host {
                request.headers_mut().insert(HOST, current.endpoint().authority.clone());
            }
            let slot = if current.speaks_http2() { None } else { self.slot().await? };
            let on_lane = current.enter();
            let attempt = Attempt {
                upstream: &self.upstream,
                settings: &self.upstream.settings,
                lane: &current,
                progress: &progress,
                response_timeout: timeouts.response,
                may_repeat: self.may_repeat(&lanes, &tried),
            };
            let is_idempotent = is_idempotent(request.method());
            let made = if is_upgrade {
                Box::pin(attempt.make_upgrade(request)).await
            } else {
                attempt.make(request).await
            };
            let made = match made {
                Ok(answered) => match fit(&answered.response, is_upgrade) {
                    Ok(()) => Ok(answered),
                    Err(error) => Err(Failed { error, again: None }),
                },
                failed => failed,
            };
            let (outcome, again) = match made {
                Ok(answered) => {
                    let verdict = self.judge(&current, &answered.response, is_idempotent);
                    let slot = slot.filter(|_| answered.lease.is_some());
                    let stream = answered
                        .stream
                        .map(|stream| StreamInUse { stream: Some(stream), progress: Rc::clone(&progress) });
                    let in_use = InUse { _lane: on_lane, _stream: stream, _slot: slot, _admission: None };
                    (
                        Ok((answered.response, answered.lease, in_use)),
                        answered.again.filter(|_| verdict.is_retried),
                    )
                }
                Err(failed) => {
                    // A failure of the request's own body shows as an error of the connection that it was sent on.
                    let error = progress.failure().map_or(failed.error, UpstreamError::RequestBody);
                    if matches!(error, UpstreamError::NoStream { .. }) {
                        self.upstream.stats.over_pending.count();
                    }
                    if let Some(failure) =
                        error.failure().filter(|failure| self.is_telling(*failure, timeouts))
                    {
                        self.upstream.failed(&current.member, failure, self.clock.monotonic());
                    }
                    (Err(error), failed.again)
                }
            };
            let stays = matches!(outcome, Err(UpstreamError::Refused(_)));
            if let Some(again) = again {
                tried.push(current);
                if let Some(retry) = self.retry(again, &progress, &lanes, &tried, stays) {
                    (next, request) = retry;
                    continue;
                }
            }
            let (response, lease, in_use) = outcome?;
            let in_use = InUse { _admission: admission, ..in_use };
            return Ok(response.map(|body| UpstreamBody::new(body, lease, in_use)));
        }
    }

    /// The sending to this lane was given up, since it had taken longer than this as a whole. That counts as a response
    /// time-out if it is as long as the upstream's own, and if it was the answer that was waited for, and for most of the
    /// time: no client shall have an endpoint ejected by being slow itself.
    pub fn overdue(&self, lane: &Lane, progress: &BodyProgress, total: Duration) {
        let is_own = self.upstream.settings.timeouts.total.is_some_and(|own| total >= own);
        if is_own && progress.is_sent.get() && progress.waited() < total / 2 {
            self.upstream.failed(&lane.member, Failure::Timeout, self.clock.monotonic());
        }
    }

    /// Whether a failure says something of the endpoint: a route that is less patient than the upstream shall not have it
    /// ejected for all others.
    fn is_telling(&self, failure: Failure, timeouts: AnswerTimeouts) -> bool {
        failure != Failure::Timeout || timeouts.response >= self.upstream.settings.timeouts.response
    }

    /// Closes connections that have been idle for too long; to be called now and then.
    pub fn prune(&self) {
        self.lanes.borrow().all().iter().for_each(|lane| lane.pool.prune());
    }

    /// The lanes to the members of this moment.
    fn lanes(&self) -> Rc<Lanes> {
        let mut lanes = self.lanes.borrow_mut();
        if lanes.generation != self.upstream.members.generation() {
            *lanes = Rc::new(make_lanes(&self.upstream, lanes.all(), &self.clock));
        }
        Rc::clone(&lanes)
    }

    /// Whether the upstream may be given one more request.
    fn admit(&self) -> Result<Option<Admission>, UpstreamError> {
        let Some(most) = self.upstream.settings.limits.requests else { return Ok(None) };
        let admission = self.upstream.admit(most);
        if admission.is_none() {
            self.upstream.stats.over_requests.count();
        }
        admission.map(Some).ok_or_else(|| self.busy("limits.requests"))
    }

    /// A place among the connections in use, which is waited for no longer than a connection would be.
    async fn slot(&self) -> Result<Option<OwnedSemaphorePermit>, UpstreamError> {
        let Some(slots) = &self.slots else { return Ok(None) };
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return Ok(Some(slot));
        }
        let settings = &self.upstream.settings;
        let mut slot = None;
        if self.waiting.get() < settings.limits.pending {
            let _waiting = Waiting::new(&self.waiting);
            let turn = tokio::time::timeout(settings.timeouts.connect, Arc::clone(slots).acquire_owned());
            slot = turn.await.ok().and_then(Result::ok);
        }
        if slot.is_none() {
            self.upstream.stats.over_pending.count();
        }
        slot.map(Some).ok_or_else(|| self.busy("limits.connections and limits.pending"))
    }

    fn may_repeat(&self, lanes: &Lanes, tried: &[Rc<Lane>]) -> MayRepeat {
        if tried.len() >= self.upstream.settings.retries.attempts as usize {
            MayRepeat::Never
        } else if lanes.all().len() > tried.len() + 1 {
            MayRepeat::Elsewhere
        } else {
            MayRepeat::Here
        }
    }

    /// Where the request is sent again, if it is: to an endpoint that it has not been to, or, if it `stays` for want of
    /// such a one, to where it was refused unprocessed.
    fn retry(
        &self,
        request: Sending,
        progress: &BodyProgress,
        lanes: &Lanes,
        tried: &[Rc<Lane>],
        stays: bool,
    ) -> Option<(Rc<Lane>, Sending)> {
        let attempts = self.upstream.settings.retries.attempts as usize;
        if tried.len() > attempts || !progress.is_repeatable() {
            return None;
        }
        let again = || tried.last().filter(|_| stays).map(Rc::clone);
        let lane = self.chooser.choose(lanes, tried).or_else(again)?;
        if self.budget.spend(self.clock.monotonic()) {
            self.upstream.stats.retries.count();
            Some((lane, request))
        } else {
            self.upstream.stats.retries_over_budget.count();
            None
        }
    }

    /// What a response says of the endpoint, and whether the request goes to another one for it.
    fn judge<B>(&self, lane: &Lane, response: &Response<B>, is_idempotent: bool) -> Verdict {
        let status = response.status();
        let is_gateway_error = matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        if is_gateway_error {
            self.upstream.failed(&lane.member, Failure::Status, self.clock.monotonic());
        } else {
            self.upstream.succeeded(&lane.member);
        }
        let retries = &self.upstream.settings.retries;
        let by_status = is_idempotent && retries.statuses.contains(&status);
        let by_grpc = retries.grpc_unavailable && is_grpc_unavailable(response.headers());
        Verdict { is_retried: by_status || by_grpc }
    }

    fn no_healthy_endpoint(&self) -> UpstreamError {
        UpstreamError::NoHealthyEndpoint { upstream: self.upstream.settings.name.to_string() }
    }

    fn busy(&self, limit: &'static str) -> UpstreamError {
        UpstreamError::Busy { upstream: self.upstream.settings.name.to_string(), limit }
    }
}

struct Verdict {
    is_retried: bool,
}

fn make_lanes(upstream: &Upstream, before: &[Rc<Lane>], clock: &Clock) -> Lanes {
    // Read before the members: a publication in between is then taken in with the next request.
    let generation = upstream.members.generation();
    let settings = &upstream.settings;
    Lanes::new(generation, &upstream.members.all(), before, |member| {
        let may_share = settings.protocol == Protocol::Http2
            || (settings.protocol == Protocol::Auto && member.endpoint.tls.is_some());
        let pool = EndpointPool::new(settings.max_idle, settings.timeouts.idle, may_share, clock.clone());
        Lane::new(Arc::clone(member), pool)
    })
}

/// Whether a response can be passed on.
fn fit<B>(response: &Response<B>, may_switch: bool) -> Result<(), UpstreamError> {
    if may_switch && response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    head::check(response)
}

/// A response without messages that says UNAVAILABLE: the call did not get to its server.
fn is_grpc_unavailable(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status == "14")
        && headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
