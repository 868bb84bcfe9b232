//! A request's body as it comes from the client, and what becomes of the part that nobody wants.
//!
//! By HTTP/2 a body that is dropped resets its stream. RFC 9113 section 8.1 lets a server do that once its response is
//! complete, but clients that are still sending then report the reset and not the response: curl before 8.0 does. By
//! HTTP/1.1 the connection ends with it (RFC 9112 section 9.3), and a client that believes it persistent loses its next
//! request. So what is left is read for a while and thrown away; where that cannot lead to the body's end,
//! [`is_read_on`] says so beforehand, and the response says `Connection: close`.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::EXPECT;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// How long, and for how many bytes, the rest of an unwanted body is read.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: usize = 4 * 1024 * 1024;

/// A request's body as it comes from the client.
#[derive(Debug)]
pub struct ClientBody {
    incoming: Option<Incoming>,
    /// What nobody wants is read all the same for a while.
    is_read_on: bool,
}

impl ClientBody {
    /// A request's body. Without `is_read_on`, its HTTP/1.1 connection or HTTP/2 stream ends when nobody wants the rest.
    pub fn new(incoming: Incoming, is_read_on: bool) -> Self {
        Self { incoming: Some(incoming), is_read_on }
    }
}

/// Whether a body of HTTP/1.1 will be read to its end if nobody wants it: one that says that it is short, and whose client
/// does not wait to be asked for it (RFC 9110 section 10.1.1).
pub fn is_read_on(request: &Request<Incoming>) -> bool {
    let length = request.body().size_hint().exact();
    let is_short = length.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length <= MOST));
    is_short && !request.headers().contains_key(EXPECT)
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        Pin::new(incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let rest = self.incoming.take().filter(|incoming| self.is_read_on && !incoming.is_end_stream());
        if let Some(rest) = rest {
            tokio::task::spawn_local(tokio::time::timeout(PATIENCE, throw_away(rest)));
        }
    }
}

async fn throw_away(rest: Incoming) {
    let mut rest = pin!(rest);
    let mut thrown: usize = 0;
    while let Some(Ok(frame)) = rest.frame().await {
        thrown = thrown.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        if thrown > MOST {
            return;
        }
    }
}
