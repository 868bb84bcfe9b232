//! An upstream that dies at every possible byte, lies about lengths or floods: the client gets a truthful code, or a
//! response that visibly breaks off, and never a wrong success. By HTTP/1.1 and HTTP/2 on both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::h2server::{self, H2Server};
use crate::h2wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, H2, HEADERS, Outcome, SETTINGS, block, frame, get,
};
use crate::recorder::Recorder;
use crate::setup::Gateway;
use crate::upstream::in_front_of;

/// Where the upstream dies, and how; shared with its script.
#[derive(Clone, Default)]
struct Death {
    after: Arc<AtomicUsize>,
    by_reset: Arc<AtomicBool>,
}

impl Death {
    fn set(&self, after: usize, by_reset: bool) {
        self.after.store(after, Ordering::SeqCst);
        self.by_reset.store(by_reset, Ordering::SeqCst);
    }

    fn after(&self) -> usize {
        self.after.load(Ordering::SeqCst)
    }

    fn is_by_reset(&self) -> bool {
        self.by_reset.load(Ordering::SeqCst)
    }
}

/// What the client may see of a response that should have been `hello`.
async fn judge(gateway: &Gateway, is_whole: bool, what: &str) {
    let mut wire = gateway.wire().await;
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let h1 = wire.answer().await;
    let h2 = H2::plain(gateway.plain).await.request(1, &get("/a")).await;
    if is_whole {
        assert!(h1.is_some_and(|answer| answer.complete && answer.body == b"hello"), "{what}");
        assert_eq!(h2.answer().body, b"hello", "{what}");
        return;
    }
    // No answer at all would have clients ask again, whatever the request has done.
    let truthful = h1.as_ref().is_some_and(|answer| {
        let verdict = answer.verdict();
        !answer.complete || verdict.starts_with("VAL-060") || verdict.starts_with("VAL-062")
    });
    assert!(truthful, "{what}: {h1:?}");
    let truthful = match &h2 {
        Outcome::Answer(answer) => answer.status == 502,
        Outcome::Reset(_) | Outcome::Closed { .. } => true,
    };
    assert!(truthful, "{what}: {h2:?}");
}

#[tokio::test]
async fn a_response_cut_off_at_any_byte_is_never_a_success() {
    for whole in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let death = Death::default();
        let shared = death.clone();
        let recorder = Recorder::scripted(move |mut conn| {
            let death = shared.clone();
            async move {
                conn.request().await;
                conn.send(&whole.as_bytes()[..death.after()]).await;
                if death.is_by_reset() {
                    conn.reset();
                }
            }
        })
        .await;
        let gateway = in_front_of(&recorder.url(), "").await;
        for length in 0..=whole.len() {
            for by_reset in [false, true] {
                // A reset may overtake the whole response, and then it is none.
                if by_reset && length == whole.len() {
                    continue;
                }
                death.set(length, by_reset);
                let what = format!("{whole:?} cut at {length}, reset: {by_reset}");
                judge(&gateway, length == whole.len(), &what).await;
            }
        }
    }
}

#[tokio::test]
async fn an_http2_response_cut_off_at_any_byte_is_never_a_success() {
    let with_length = |stream| {
        let fields = [&[0x88], &*block(&[("content-length", "5")])].concat();
        let head = frame(HEADERS, END_HEADERS, stream, &fields);
        [frame(SETTINGS, 0, 0, &[]), head, frame(DATA, END_STREAM, stream, b"hello")].concat()
    };
    let with_trailers = |stream| {
        let head = frame(HEADERS, END_HEADERS, stream, &[0x88]);
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[("x", "y")]));
        [frame(SETTINGS, 0, 0, &[]), head, frame(DATA, 0, stream, b"hello"), trailers].concat()
    };
    for whole in [with_length, with_trailers] {
        let death = Death::default();
        let shared = death.clone();
        let server = H2Server::scripted(move |mut conn| {
            let death = shared.clone();
            async move {
                // A server sends its SETTINGS before it has read anything (RFC 9113 section 3.4).
                conn.send(&whole(1)[..death.after().min(9)]).await;
                let stream = conn.request().await.unwrap_or(1);
                conn.send(&whole(stream)[death.after().min(9)..death.after()]).await;
                if death.is_by_reset() {
                    conn.reset();
                }
            }
        })
        .await;
        let gateway = in_front_of(&server.url(), ", protocol: http2, retries: { attempts: 0 }").await;
        let length = whole(1).len();
        for cut in 0..=length {
            for by_reset in [false, true] {
                if by_reset && cut == length {
                    continue;
                }
                death.set(cut, by_reset);
                judge(&gateway, cut == length, &format!("cut at {cut}, reset: {by_reset}")).await;
            }
        }
    }
}

#[tokio::test]
async fn an_http2_upstream_that_lies_about_its_length_is_never_a_success() {
    for (length, body) in [("6", "hello"), ("4", "hello"), ("5", "")] {
        let server = H2Server::scripted(move |mut conn| async move {
            conn.settings().await;
            while let Some(stream) = conn.request().await {
                let fields = [&[0x88], &*block(&[("content-length", length)])].concat();
                conn.send(&frame(HEADERS, END_HEADERS, stream, &fields)).await;
                conn.send(&frame(DATA, END_STREAM, stream, body.as_bytes())).await;
            }
        })
        .await;
        let gateway = in_front_of(&server.url(), ", protocol: http2").await;
        judge(&gateway, false, &format!("{length} for {body:?}")).await;
    }
}

#[tokio::test]
async fn an_upstream_that_says_less_than_it_sends_gets_no_second_response_through() {
    let recorder =
        Recorder::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n").await;
    let gateway = in_front_of(&recorder.url(), "").await;
    for _ in 0..5 {
        judge(&gateway, true, "trailing bytes").await;
    }
    assert_eq!(recorder.connections(), recorder.requests().len(), "such a connection is not used again");
}

#[tokio::test]
async fn garbage_over_http2_is_a_bad_gateway() {
    let fields: Vec<_> = (0..700).map(|n| (format!("x-{n}"), "v".repeat(100))).collect();
    let huge = [&[0x88], &*block(&fields)].concat();
    let (first, rest) = huge.split_at(16_000);
    let mut huge = frame(HEADERS, END_STREAM, 1, first);
    rest.chunks(16_000).for_each(|chunk| huge.extend(frame(CONTINUATION, 0, 1, chunk)));
    huge.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
    for bytes in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        vec![0; 64],
        frame(DATA, END_STREAM, 1, b"no head"),
        // No status; an unknown pseudo-header; an upper-case name; a stream that nobody opened.
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x", "y")])),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(":status", "200"), (":foo", "/")])),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(":status", "200"), ("X-Upper", "y")])),
        frame(HEADERS, END_HEADERS | END_STREAM, 3, &[0x88]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 20]),
        huge,
    ] {
        let sent = bytes.clone();
        let server = H2Server::scripted(move |mut conn| {
            let bytes = sent.clone();
            async move {
                conn.settings().await;
                conn.request().await;
                conn.send(&bytes).await;
            }
        })
        .await;
        let gateway = in_front_of(&server.url(), ", protocol: http2").await;
        judge(&gateway, false, &format!("{:?}", &bytes[..bytes.len().min(40)])).await;
    }
}

/// Interim responses without end: bounded by the time that a response may take, and never passed off as one.
#[tokio::test]
async fn a_flood_of_interim_responses_is_a_timeout() {
    let recorder = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        while !conn.is_closed().await {
            conn.send(b"HTTP/1.1 102 Processing\r\n\r\n").await;
        }
    })
    .await;
    let server = H2Server::scripted(|mut conn| async move {
        conn.settings().await;
        let Some(stream) = conn.request().await else { return };
        let interim = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "102")]));
        while conn.is_open().await {
            conn.send(&interim).await;
        }
    })
    .await;
    for (url, more) in [(recorder.url(), ""), (server.url(), ", protocol: http2")] {
        let gateway = in_front_of(&url, &format!(", timeouts: {{ response: 300ms }}{more}")).await;
        let answer = gateway.get("/a", "").await;
        let verdict = answer.verdict();
        assert!(
            ["VAL-061 response_timeout", "VAL-062 bad_response", "VAL-060 reset"].contains(&&*verdict),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn an_http2_upstream_that_never_answers_times_out() {
    let server = H2Server::scripted(|mut conn| async move {
        conn.settings().await;
        while conn.request().await.is_some() {}
    })
    .await;
    let gateway = in_front_of(&server.url(), ", protocol: http2, timeouts: { response: 200ms }").await;
    assert_eq!(gateway.get("/a", "").await.verdict(), "VAL-061 response_timeout");
    assert_eq!(server.seen().len(), 1, "a time-out is not repeated");
}

/// The same stub tells the truth when it does not die, so that the tests above can fail.
#[tokio::test]
async fn an_http2_upstream_that_lives_is_a_success() {
    let server = H2Server::scripted(|mut conn| async move {
        conn.settings().await;
        while let Some(stream) = conn.request().await {
            conn.send(&h2server::answer(stream, b"hello")).await;
        }
    })
    .await;
    let gateway = in_front_of(&server.url(), ", protocol: http2").await;
    judge(&gateway, true, "alive").await;
}
