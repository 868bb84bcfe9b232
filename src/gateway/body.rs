//! The body of a response: an upstream's, streamed, or one of our own. When it ends, in whatever way, the exchange
//! is over and is written down.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::exchange::Exchange;
use super::grpc;
use super::long_lived::{Ending, Stream};
use super::trailers::Withheld;
use crate::upstream::UpstreamBody;

/// A response's body on its way to the client. Boxed, since the response is moved from hand to hand until hyper has it,
/// and by hyper too.
#[derive(Debug)]
pub struct ResponseBody(Box<State>);

#[derive(Debug)]
struct State {
    source: Source,
    exchange: Option<Box<Exchange>>,
    /// Set once the response has had to wait for more.
    watched: Option<Rc<Stream>>,
    /// When it has to be complete, where that is bounded.
    deadline: Option<Pin<Box<Sleep>>>,
    /// How a gRPC client is told that its stream was ended.
    is_grpc: bool,
}

/// A body that does not come to its end. The connection is closed or the stream reset: never a seemingly whole response.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream broke off.
    #[error("the upstream broke off: {0}")]
    Upstream(#[from] hyper::Error),
    /// The token ended.
    #[error("the token's end: {0:?}")]
    Ended(Ending),
    /// The upstream's total time-out is over.
    #[error("not complete within the total time-out")]
    TimedOut,
}

#[derive(Debug)]
enum Source {
    Upstream(UpstreamBody, Withheld),
    Full(Option<Bytes>),
    /// A gRPC message and the trailers that end it.
    Message(Option<Bytes>, Option<HeaderMap>),
    /// The upstream broke off, and the client is to be told next.
    Failed(Option<BodyError>),
}

impl ResponseBody {
    /// A body of our own.
    pub fn full(bytes: Bytes) -> Self {
        Self::of(Source::Full((!bytes.is_empty()).then_some(bytes)), false)
    }

    /// A gRPC message of our own and the trailers behind it.
    pub fn message(bytes: Bytes, trailers: HeaderMap) -> Self {
        Self::of(Source::Message(Some(bytes), Some(trailers)), true)
    }

    /// What a body of our own says; nothing of an upstream's.
    pub(super) fn said(&self) -> &[u8] {
        match &self.0.source {
            Source::Full(Some(bytes)) | Source::Message(Some(bytes), _) => bytes,
            Source::Full(None) | Source::Message(None, _) | Source::Upstream(..) | Source::Failed(_) => &[],
        }
    }

    /// An upstream's body, of whose trailers some are withheld.
    pub fn upstream(body: UpstreamBody, withheld: Withheld, is_grpc: bool) -> Self {
        Self::of(Source::Upstream(body, withheld), is_grpc)
    }

    fn of(source: Source, is_grpc: bool) -> Self {
        Self(Box::new(State { source, exchange: None, watched: None, deadline: None, is_grpc }))
    }

    /// Breaks off when this is over, if the body has not ended by then.
    #[must_use]
    pub fn until(mut self, deadline: Option<Pin<Box<Sleep>>>) -> Self {
        self.0.deadline = deadline;
        self
    }

    /// Has the exchange written down when this body ends.
    #[must_use]
    pub fn observed(mut self, exchange: Box<Exchange>) -> Self {
        self.0.exchange = Some(exchange);
        self.0.finish_if_ended();
        self
    }
}

impl State {
    fn finish_if_ended(&mut self) {
        if self.is_end_stream() {
            self.finish();
        }
    }

    /// Ends the response because its token has ended.
    fn cut(&mut self, ending: Ending) -> Result<Frame<Bytes>, BodyError> {
        if let Some(exchange) = self.exchange.take() {
            exchange.cut(ending);
        }
        self.watched = None;
        self.source = Source::Full(None);
        if self.is_grpc {
            Ok(Frame::trailers(grpc::trailers(ending.reason())))
        } else {
            Err(BodyError::Ended(ending))
        }
    }

    /// The next frame of the upstream's body, with an eye on the token while there is none.
    fn poll_upstream(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(ending) = self.watched.as_ref().and_then(|stream| stream.poll_ended(context.waker())) {
            return Poll::Ready(Some(self.cut(ending)));
        }
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            self.deadline = None;
            if let Some(exchange) = self.exchange.take() {
                exchange.timed_out();
            }
            // Broken off as when the upstream does it, see below; its connection goes with it.
            self.source = Source::Failed(Some(BodyError::TimedOut));
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Source::Upstream(body, withheld) = &mut self.source else { return Poll::Ready(None) };
        let mut frame = Pin::new(body).poll_frame(context).map_err(BodyError::from);
        if let Poll::Ready(Some(Ok(frame))) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            match self.exchange.as_ref().and_then(|exchange| exchange.route.as_ref()) {
                Some(route) => withheld.strip(trailers, &route.identity_headers),
                // Whoever does not know the route does not know what must not leave.
                None => trailers.clear(),
            }
        }
        if let Poll::Ready(Some(Err(error))) = frame {
            // hyper sends what it has when the body has nothing yet, and none of it when the body fails at once. A client
            // that gets no byte may well ask again.
            self.source = Source::Failed(Some(error));
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if frame.is_pending() && self.watched.is_none() {
            self.watched = self.exchange.as_ref().and_then(|exchange| exchange.watch());
            if let Some(stream) = &self.watched {
                stream.poll_ended(context.waker());
            }
        }
        frame
    }

    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.completed();
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Message(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            Source::Upstream(body, _) => body.is_end_stream(),
            Source::Failed(error) => error.is_none(),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self.0;
        let frame = match &mut this.source {
            Source::Full(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Message(bytes, trailers) => match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            },
            Source::Failed(error) => error.take().map(Err),
            Source::Upstream(..) => ready!(this.poll_upstream(context)),
        };
        match (&frame, &mut this.exchange) {
            (Some(Ok(frame)), Some(exchange)) => exchange.sent(frame.data_ref().map_or(0, Bytes::len)),
            (Some(Err(_)), Some(_)) => {
                if let Some(exchange) = this.exchange.take() {
                    exchange.upstream_aborted();
                }
            }
            _ => {}
        }
        if frame.is_none() {
            this.finish();
        } else {
            this.finish_if_ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0.source {
            Source::Full(bytes) | Source::Message(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Upstream(body, _) => body.size_hint(),
            Source::Failed(_) => SizeHint::default(),
        }
    }
}
