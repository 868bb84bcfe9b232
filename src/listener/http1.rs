//! HTTP/1.1 on one connection: requests until it ends, and rests between them.
//!
//! Knows nothing of how the connection came about.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;

use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, respond};
use super::crowd::Asked;
use super::drain::DrainSignal;
use super::rest::{OnSocket, arrival, stream_of};
use crate::gateway::{Inbound, Peer, ResponseBody};
use crate::http1::{Guard, GuardHandle};

impl Connection {
    pub(super) async fn speak_http1<S>(
        &self,
        mut stream: S,
        peer: Rc<Peer>,
        drain: DrainSignal,
    ) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + OnSocket + Unpin + Send + 'static,
    {
        self.member.may_be_idle_for(self.settings.idle);
        loop {
            // Boxed, so that a connection at rest has no room for it.
            let Some(at_rest) = Box::pin(self.serve_http1(stream, &peer, &drain)).await? else {
                return Ok(());
            };
            stream = at_rest;
            tokio::select! {
                biased;
                () = arrival(&stream) => {}
                why = self.member.asked_to_leave() => {
                    self.closed(why);
                    return Ok(());
                }
                // From here on as if it had never rested.
                _ = drain.begun() => {}
            }
        }
    }

    /// Serves requests to the connection's end, or gives back its stream when it goes to rest.
    async fn serve_http1<S>(
        &self,
        stream: S,
        peer: &Rc<Peer>,
        drain: &DrainSignal,
    ) -> hyper::Result<Option<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (guard, handle) = Guard::new(stream, self.http.guard);
        let untold = Untold { of: self, handle: &handle, is_told: Cell::new(false) };
        let service = service_fn(|request| {
            let request = Box::new(request);
            let inbound = handle.begin().map_or_else(Inbound::Refused, Inbound::Http1);
            untold.is_told.set(untold.is_told.get() || matches!(inbound, Inbound::Refused(_)));
            let peer = Rc::clone(peer);
            // Boxed, since hyper would keep room for it as long as the connection lives.
            Box::pin(async move {
                let response = respond(&self.gateway, &self.settings, &peer, request, inbound).await;
                Ok::<_, Infallible>(if drain.has_begun() { last(response) } else { response })
            })
        });
        let mut connection = self.http.http1.serve_connection(TokioIo::new(guard), service).with_upgrades();
        let patience = loop {
            tokio::select! {
                biased;
                outcome = &mut connection => return outcome.map(|()| None),
                asked = self.member.asked() => match asked {
                    Asked::ToLeave(why) => {
                        self.closed(why);
                        return Ok(None);
                    }
                    // It has just been polled, and has taken whatever was there.
                    Asked::ToRest if handle.is_at_rest() => return Ok(connection.into_parts().and_then(stream_of)),
                    Asked::ToRest => {}
                },
                patience = drain.begun() => break patience,
            }
        };
        tokio::select! {
            biased;
            outcome = &mut connection => return outcome.map(|()| None),
            why = self.member.asked_to_leave() => {
                self.closed(why);
                return Ok(None);
            }
            () = self.idle_for(patience) => {}
        }
        Pin::new(&mut connection).graceful_shutdown();
        tokio::select! {
            outcome = &mut connection => outcome.map(|()| None),
            why = self.member.asked_to_leave() => {
                self.closed(why);
                Ok(None)
            }
        }
    }
}

/// Tells at a connection's end of what its guard refused, unless it came to its turn and so to a line in the access log.
struct Untold<'a> {
    of: &'a Connection,
    handle: &'a GuardHandle,
    is_told: Cell<bool>,
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        if let Some(violation) = self.handle.violation_of_head().filter(|_| !self.is_told.get()) {
            let (client, listener) = (self.of.address, &self.of.settings.name);
            tracing::info!(%client, %listener, %violation, "the client left before its bad request could be refused");
        }
    }
}

/// The response as the connection's last: it says so, and hyper then closes.
fn last(mut response: http::Response<ResponseBody>) -> http::Response<ResponseBody> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
