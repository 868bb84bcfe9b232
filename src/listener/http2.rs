//! HTTP/2 on one connection: streams until it ends.
//!
//! Knows nothing of how the connection came about.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::calm::Calm;
use super::conduct::Conduct;
use super::connection::{Connection, respond};
use super::drain::DrainSignal;
use super::last_words::WebSockets;
use super::pace::Paced;
use super::turns::Turns;
use crate::gateway::{Inbound, Peer};
use crate::telemetry::metrics::Closed;

impl Connection {
    pub(super) async fn speak_http2<S>(&self, stream: S, peer: Rc<Peer>, drain: DrainSignal)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let conduct = {
            let metrics = Rc::clone(&self.gateway.core().metrics);
            Rc::new(Conduct::new(self.address, Arc::clone(&self.settings.name), metrics))
        };
        let calm = Calm::new(self.settings.control_frames, self.gateway.core().clock.clone());
        let stream = Turns::new(stream, calm, Rc::clone(&conduct));
        if let Err(error) = self.serve_streams(stream, peer, drain).await {
            self.note(true, conduct.is_flood(), &error);
        }
    }

    async fn serve_streams<S>(&self, stream: S, peer: Rc<Peer>, drain: DrainSignal) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        // hyper runs each stream as a task of its own, which may outlive this function's borrow.
        let (gateway, settings) = (self.gateway.clone(), Rc::clone(&self.settings));
        let websockets = WebSockets::default();
        let all = websockets.clone();
        let service = service_fn(move |request| {
            let request = Box::new(request);
            let (gateway, settings, peer) = (gateway.clone(), Rc::clone(&settings), Rc::clone(&peer));
            let websockets = (request.method() == Method::CONNECT).then(|| websockets.clone());
            // Boxed, since it is moved several times on its way to becoming a task.
            Box::pin(async move {
                if peer.activity.is_disowned() {
                    // Until the connection is over, which goes on for others' last words only.
                    std::future::pending::<()>().await;
                }
                let inbound = Inbound::Http2 { hold: websockets.map(|websockets| websockets.hold()) };
                let response = respond(&gateway, &settings, &peer, request, inbound).await;
                Ok::<_, Infallible>(response.map(Paced::new))
            })
        });
        let mut connection = pin!(self.http.http2.serve_connection(TokioIo::new(stream), service));
        let mut asked = tokio::select! {
            biased;
            outcome = connection.as_mut() => return outcome,
            why = self.member.asked_to_leave() => Some(why),
            _ = drain.begun() => None,
            () = self.idle_for(self.settings.idle) => {
                self.closed(Closed::Idle);
                None
            }
        };
        connection.as_mut().graceful_shutdown();
        if asked.is_none() {
            asked = tokio::select! {
                outcome = connection.as_mut() => return outcome,
                why = self.member.asked_to_leave() => Some(why),
                // A client that answers GOAWAY with silence is not waited for.
                () = self.idle_for(self.settings.idle) => None,
            };
        }
        if let Some(why) = asked {
            self.closed(why);
            all.last_words(connection).await;
        }
        Ok(())
    }
}
