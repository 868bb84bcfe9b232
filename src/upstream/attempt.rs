//! One attempt: a request on one lane, by an idle connection, a shared one or a new one, to the head of its response.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::sync::OwnedSemaphorePermit;

use super::body::{BodyProgress, RequestBody};
use super::connect::{Connected, connect};
use super::error::UpstreamError;
use super::head::{Sending, again, is_idempotent, to_http1, to_http2};
use super::lane::Lane;
use super::multiplexed::{OnStream, Shared};
use super::patience::Patience;
use super::pool::{Connection, Lease, Turn};
use super::service::Upstream;
use super::settings::{Protocol, UpstreamSettings};
use super::websocket::{HandshakeKey, from_extended_connect, to_extended_connect};

/// One attempt of one request.
pub(super) struct Attempt<'a> {
    pub upstream: &'a Arc<Upstream>,
    pub settings: &'a UpstreamSettings,
    pub lane: &'a Rc<Lane>,
    pub progress: &'a BodyProgress,
    /// From the end of the request to the first byte of the answer.
    pub response_timeout: Duration,
    /// Whether more attempts may follow, so that what they would send has to be kept.
    pub may_repeat: MayRepeat,
}

/// Which attempts may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayRepeat {
    /// None.
    Never,
    /// On the same lane, if the upstream says that it did not process the request.
    Here,
    /// On another lane as well.
    Elsewhere,
}

/// The head of a response, and the HTTP/1.1 connection that it came on.
pub(super) struct Answered {
    pub response: Response<Incoming>,
    pub lease: Option<Lease>,
    /// The stream of an HTTP/2 connection that it came on.
    pub stream: Option<OnStream>,
    /// What may be sent in its place, if the response is not good enough.
    pub again: Option<Sending>,
}

/// An attempt without a response.
pub(super) struct Failed {
    pub error: UpstreamError,
    /// The request, where sending it again is safe.
    pub again: Option<Sending>,
}

impl Attempt<'_> {
    /// Makes the attempt.
    pub async fn make(&self, request: Sending) -> Result<Answered, Failed> {
        let mut request = request;
        // Idle connections may turn out to be closed; what was not sent comes back and goes to the next one.
        while let Some(lease) = self.lane.pool.take() {
            match self.by_used_connection(lease, request).await? {
                Outcome::Done(answered) => return Ok(answered),
                Outcome::Unsent(unsent) => request = unsent,
                // The other idle ones are likely to be dead too.
                Outcome::Stale(again) => {
                    request = again;
                    break;
                }
            }
        }
        if let Some((shared, stream)) = self.shared() {
            match self.by_http2(shared, stream, request).await {
                Ok(Outcome::Done(answered)) => return Ok(answered),
                Ok(Outcome::Unsent(unsent) | Outcome::Stale(unsent)) => request = unsent,
                // As with an idle connection: a new one gets a chance.
                Err(Failed {
                    error: UpstreamError::Reset(_) | UpstreamError::Refused(_),
                    again: Some(again),
                }) if self.progress.is_repeatable() => {
                    request = again;
                }
                Err(failed) => return Err(failed),
            }
        }
        match Box::pin(self.by_turn(request)).await? {
            Outcome::Done(answered) => Ok(answered),
            Outcome::Unsent(request) | Outcome::Stale(request) => Err(unsent(request)),
        }
    }

    /// By a connection that comes back or is made, or a stream that comes free, whichever is first.
    async fn by_turn(&self, request: Sending) -> Result<Outcome, Failed> {
        let mut request = request;
        let mut takes_used = true;
        loop {
            let way = match self.in_turn(takes_used).await {
                Ok(way) => way,
                Err(error) => return Err(Failed { error, again: Some(to_http1(request)) }),
            };
            return match way {
                Way::Returned(lease) => match self.by_used_connection(lease, request).await? {
                    Outcome::Done(answered) => Ok(Outcome::Done(answered)),
                    Outcome::Unsent(again) | Outcome::Stale(again) => {
                        // Once, and not on one dead connection after the other.
                        (request, takes_used) = (again, false);
                        continue;
                    }
                },
                Way::Http1(lease) => self.by_http1(lease, request).await,
                Way::Http2 { shared, stream, is_new } => {
                    match self.by_http2(shared, stream, request).await? {
                        // hyper notices that a connection has been told to take no more (GOAWAY) only when a request
                        // is to be sent on it, and closes it then: each such one is met once.
                        Outcome::Unsent(again) if !is_new => {
                            request = again;
                            continue;
                        }
                        outcome => Ok(outcome),
                    }
                }
            };
        }
    }

    /// A connection, or a stream of one, for a request that found none at hand. It waits for its turn to make one no
    /// longer than for a connection, and for the other side as long once more if there is none at all; where there is
    /// one, any stream that comes free will do, and no request waits for one more connection in particular.
    async fn in_turn(&self, takes_used: bool) -> Result<Way, UpstreamError> {
        let pool = &self.lane.pool;
        let until = tokio::time::sleep(self.settings.timeouts.connect);
        let mut until = pin!(until);
        loop {
            let turn = {
                let mut turn = pin!(pool.turn(takes_used));
                loop {
                    tokio::select! {
                        biased;
                        turn = &mut turn => break turn,
                        () = pool.http2.freed(), if pool.http2.is_open() => {
                            if let Some((shared, stream)) = self.shared() {
                                return Ok(Way::Http2 { shared, stream, is_new: false });
                            }
                        }
                        () = pool.http2.look_now_and_then(), if pool.http2.is_open() => {}
                        () = &mut until => return Err(self.none_in_time()),
                    }
                }
            };
            let permit = match turn {
                Turn::Returned(lease) => return Ok(Way::Returned(lease)),
                Turn::Connect(permit) => permit,
            };
            // Whoever had the permit before may have made an HTTP/2 connection for all.
            if let Some((shared, stream)) = self.shared() {
                return Ok(Way::Http2 { shared, stream, is_new: false });
            }
            if !pool.http2.is_open() {
                let made = self.connect_for_all().await;
                drop(permit);
                return made;
            }
            if pool.http2.may_grow() {
                let (upstream, lane) = (Arc::clone(self.upstream), Rc::clone(self.lane));
                tokio::task::spawn_local(grow(upstream, lane, permit));
                continue;
            }
            drop(permit);
            tokio::select! {
                () = pool.http2.freed() => {}
                () = pool.http2.look_now_and_then() => {}
                () = &mut until => return Err(self.none_in_time()),
            }
        }
    }

    /// There are connections, and no room on them, or there are none.
    fn none_in_time(&self) -> UpstreamError {
        let endpoint = self.lane.member.label();
        if self.lane.pool.http2.is_open() {
            UpstreamError::NoStream { endpoint }
        } else {
            UpstreamError::ConnectTimeout { endpoint }
        }
    }

    /// A connection which, if it is HTTP/2, all share from now on.
    async fn connect_for_all(&self) -> Result<Way, UpstreamError> {
        // Boxed, here and where else a request leaves the warm path: else each one carries the room for it.
        Ok(match Box::pin(connect(self.settings, &self.lane.member, self.settings.protocol)).await? {
            Connected::Http1(sender) => Way::Http1(self.lane.pool.lease(sender)),
            Connected::Http2(shared) => {
                let stream = self.lane.pool.http2.add(&shared);
                Way::Http2 { shared, stream, is_new: true }
            }
        })
    }

    /// For a request that opens a WebSocket: by a stream of an HTTP/2 connection, if the other side takes that, or by an
    /// HTTP/1.1 connection of its own.
    pub async fn make_upgrade(&self, request: Sending) -> Result<Answered, Failed> {
        let mut request = request;
        let mut was_refused = false;
        loop {
            let (shared, stream, is_new) = match self.http2_for_websockets().await {
                Ok(Some(found)) => found,
                Ok(None) => return self.by_upgrade(request).await,
                Err(error) => return Err(Failed { error, again: Some(request) }),
            };
            match shared.takes_websockets(self.settings.timeouts.connect).await {
                Some(true) => {}
                Some(false) => {
                    drop(stream);
                    return self.by_upgrade(request).await;
                }
                None if is_new => return Err(unsent(request)),
                None => continue,
            }
            match self.by_extended_connect(shared, stream, request).await {
                Ok(Outcome::Done(answered)) => return Ok(answered),
                Ok(Outcome::Unsent(again) | Outcome::Stale(again)) if is_new => return Err(unsent(again)),
                // As with any other request: the connection is closed by now.
                Ok(Outcome::Unsent(again) | Outcome::Stale(again)) => request = again,
                // Likewise, but once: a connection that refuses single streams is there still.
                Err(Failed { error: UpstreamError::Refused(_), again: Some(again) })
                    if !is_new && !was_refused =>
                {
                    (request, was_refused) = (again, true);
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    async fn http2_for_websockets(&self) -> Result<Option<(Shared, OnStream, bool)>, UpstreamError> {
        Ok(match self.shared() {
            Some((shared, stream)) => Some((shared, stream, false)),
            None if self.settings.protocol == Protocol::Http2 => match self.in_turn(false).await? {
                Way::Http2 { shared, stream, is_new } => Some((shared, stream, is_new)),
                Way::Http1(_) | Way::Returned(_) => None,
            },
            None => None,
        })
    }

    async fn by_extended_connect(
        &self,
        mut shared: Shared,
        stream: OnStream,
        request: Sending,
    ) -> Result<Outcome, Failed> {
        let Some(key) = HandshakeKey::of(request.headers()) else {
            return Err(Failed { error: UpstreamError::NoUpgrade, again: None });
        };
        let copy = self.copy(&request, true);
        let mut request = to_http2(request, self.lane.endpoint());
        to_extended_connect(&mut request);
        let mut patience = Patience::default();
        let sending = pin!(shared.sender.try_send_request(*request));
        match self.in_time(&mut patience, sending).await? {
            Ok(response) => {
                let response = from_extended_connect(response, &key);
                Ok(Outcome::Done(Answered { response, lease: None, stream: Some(stream), again: None }))
            }
            Err(mut error) => match (error.take_message(), copy) {
                (Some(_), Some(copy)) => Ok(Outcome::Unsent(copy)),
                (_, copy) => {
                    let failed = lost(error, copy);
                    let is_safe = matches!(failed.error, UpstreamError::Refused(_));
                    Err(Failed { again: failed.again.filter(|_| is_safe), ..failed })
                }
            },
        }
    }

    /// By a connection of its own, which becomes something else with its response.
    async fn by_upgrade(&self, request: Sending) -> Result<Answered, Failed> {
        match Box::pin(connect(self.settings, &self.lane.member, Protocol::Http1)).await {
            Err(error) => Err(Failed { error, again: Some(request) }),
            Ok(Connected::Http2(_)) => Err(Failed { error: UpstreamError::NoUpgrade, again: None }),
            Ok(Connected::Http1(sender)) => {
                match self.by_http1(self.lane.pool.lease(sender), request).await? {
                    Outcome::Done(answered) => Ok(answered),
                    Outcome::Unsent(request) | Outcome::Stale(request) => Err(unsent(request)),
                }
            }
        }
    }

    /// By a connection that has served a request before. An upstream may close it in the very moment in which a request
    /// is sent on it, which is nobody's fault and none of the client's business.
    async fn by_used_connection(&self, mut lease: Lease, request: Sending) -> Result<Outcome, Failed> {
        let copy = self.copy(&request, is_idempotent(request.method()));
        let Connection { sender, patience } = &mut lease.connection;
        let sending = pin!(sender.try_send_request(*request));
        match self.in_time(patience, sending).await? {
            Ok(response) => {
                Ok(Outcome::Done(Answered { response, lease: Some(lease), stream: None, again: copy }))
            }
            Err(mut error) => match (error.take_message(), copy) {
                (Some(unsent), _) => Ok(Outcome::Unsent(Box::new(unsent))),
                (None, Some(copy)) if has_died(error.error()) && self.progress.is_repeatable() => {
                    Ok(Outcome::Stale(copy))
                }
                (None, copy) => Err(lost(error, copy.filter(|_| self.elsewhere()))),
            },
        }
    }

    async fn by_http1(&self, mut lease: Lease, request: Sending) -> Result<Outcome, Failed> {
        let request = to_http1(request);
        let copy = self.copy(&request, self.elsewhere() && is_idempotent(request.method()));
        let Connection { sender, patience } = &mut lease.connection;
        let sending = pin!(sender.try_send_request(*request));
        match self.in_time(patience, sending).await? {
            Ok(response) => {
                Ok(Outcome::Done(Answered { response, lease: Some(lease), stream: None, again: copy }))
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) => Ok(Outcome::Unsent(Box::new(unsent))),
                None => Err(lost(error, copy)),
            },
        }
    }

    async fn by_http2(
        &self,
        mut shared: Shared,
        stream: OnStream,
        request: Sending,
    ) -> Result<Outcome, Failed> {
        let is_idempotent = is_idempotent(request.method());
        // HTTP/2 tells which requests were not processed, and those may be sent again whatever they ask for.
        let copy = self.copy(&request, true);
        let request = to_http2(request, self.lane.endpoint());
        let mut patience = Patience::default();
        let sending = pin!(shared.sender.try_send_request(*request));
        match self.in_time(&mut patience, sending).await? {
            Ok(response) => {
                Ok(Outcome::Done(Answered { response, lease: None, stream: Some(stream), again: copy }))
            }
            Err(mut error) => {
                if let Some(unsent) = error.take_message() {
                    return Ok(Outcome::Unsent(to_http1(Box::new(unsent))));
                }
                let failed = lost(error, copy);
                let is_safe = is_idempotent || matches!(failed.error, UpstreamError::Refused(_));
                Err(Failed { again: failed.again.filter(|_| is_safe), ..failed })
            }
        }
    }

    fn elsewhere(&self) -> bool {
        self.may_repeat == MayRepeat::Elsewhere
    }

    /// The same request once more, if that is of use and its body can be kept.
    fn copy(&self, request: &Request<RequestBody>, is_of_use: bool) -> Option<Sending> {
        (is_of_use && self.progress.is_repeatable()).then(|| {
            self.progress.keep(self.settings.retries.buffer);
            again(request)
        })
    }

    fn shared(&self) -> Option<(Shared, OnStream)> {
        if self.settings.protocol == Protocol::Http1 { None } else { self.lane.pool.http2.take() }
    }

    /// Waits for the response's head no longer than the response time-out after the request's body has come to
    /// rest, so that a long upload is not taken for a slow answer.
    async fn in_time<F: Future>(
        &self,
        patience: &mut Patience,
        sending: Pin<&mut F>,
    ) -> Result<F::Output, Failed> {
        self.progress.is_sent.set(true);
        tokio::select! {
            biased;
            outcome = sending => {
                self.progress.is_sent.set(false);
                Ok(outcome)
            }
            () = patience.ends(self.progress, self.response_timeout) => {
                Err(Failed { error: UpstreamError::ResponseTimeout, again: None })
            }
        }
    }
}

/// How long no further connection is tried after one that could not be made, where there are others.
const REST: Duration = Duration::from_millis(100);

/// One more HTTP/2 connection, for whoever comes next. That it cannot be made is no failure of any request: those wait for
/// the streams that there are, and the other side may have as many connections as it wants.
async fn grow(upstream: Arc<Upstream>, lane: Rc<Lane>, permit: OwnedSemaphorePermit) {
    match Box::pin(connect(&upstream.settings, &lane.member, upstream.settings.protocol)).await {
        Ok(Connected::Http1(sender)) => lane.pool.lease(sender).give_back(),
        Ok(Connected::Http2(shared)) => drop(lane.pool.http2.add(&shared)),
        Err(_) => tokio::time::sleep(REST).await,
    }
    drop(permit);
}

/// What a request goes by that found nothing at hand.
enum Way {
    /// A connection that another request has come to its end on.
    Returned(Lease),
    /// A new connection.
    Http1(Lease),
    /// A stream of a connection.
    Http2 { shared: Shared, stream: OnStream, is_new: bool },
}

enum Outcome {
    Done(Answered),
    /// Not one byte of it was sent.
    Unsent(Sending),
    /// It was sent on a connection that had died, and may be sent again.
    Stale(Sending),
}

/// A new connection ended before the request could be sent on it.
fn unsent(request: Sending) -> Failed {
    Failed { error: UpstreamError::ClosedAtOnce, again: Some(request) }
}

fn lost(error: TrySendError<Request<RequestBody>>, copy: Option<Sending>) -> Failed {
    let error = error.into_error();
    let may_be_repeated = has_died(&error);
    let error = UpstreamError::from(error);
    let may_be_repeated = may_be_repeated || matches!(error, UpstreamError::Refused(_));
    Failed { error, again: copy.filter(|_| may_be_repeated) }
}

/// Whether the connection ended, as opposed to an answer that makes no sense.
fn has_died(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_closed() || error.is_canceled() || UpstreamError::is_io(error)
}
