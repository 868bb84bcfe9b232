//! The body of a response: an upstream's, streamed, or one of our own. When it ends, in whatever way, the exchange
//! is over and is written down.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::exchange::Exchange;
use crate::upstream::UpstreamBody;

/// A response's body on its way to the client.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum Source {
    Upstream(UpstreamBody),
    Full(Option<Bytes>),
}

impl ResponseBody {
    /// A body of our own.
    pub fn full(bytes: Bytes) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self { source: Source::Full(bytes), exchange: None }
    }

    /// An upstream's body.
    pub fn upstream(body: UpstreamBody) -> Self {
        Self { source: Source::Upstream(body), exchange: None }
    }

    /// Has the exchange written down when this body ends.
    #[must_use]
    pub fn observed(mut self, exchange: Box<Exchange>) -> Self {
        self.exchange = Some(exchange);
        self.finish_if_ended();
        self
    }

    fn finish_if_ended(&mut self) {
        if self.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.completed();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Full(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Upstream(body) => ready!(Pin::new(body).poll_frame(context)),
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
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Upstream(body) => body.size_hint(),
        }
    }
}
