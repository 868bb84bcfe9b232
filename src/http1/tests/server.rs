//! hyper behind the guard, on a pipe.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::http1::{Guard, GuardHandle, GuardLimits, Violation};

/// What one call of the service met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Served {
        target: String,
        body: Vec<u8>,
    },
    Refused(Violation),
    BodyRefused(Violation),
    /// The client left within the body.
    BodyCutOff,
}

/// What happened on one connection.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) calls: Vec<Call>,
    /// All that the client got.
    pub(super) answer: String,
    /// hyper found something that it could not parse.
    pub(super) parse_error: Option<hyper::Error>,
}

impl Outcome {
    /// The statuses that the client got, in order.
    pub(super) fn statuses(&self) -> Vec<&str> {
        self.answer.lines().filter_map(|line| line.strip_prefix("HTTP/1.")?.get(2..5)).collect()
    }
}

/// Sends `bytes` and closes; `pipe` is how many bytes the connection holds, and so the most that one read gets.
pub(super) fn serve(bytes: &[u8], pipe: usize) -> Outcome {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (answer, result) = run(async {
        let (mut client, server) = tokio::io::duplex(pipe);
        let (guard, handle) = Guard::new(server, GuardLimits::default());
        let connection = builder().serve_connection(
            TokioIo::new(guard),
            service_fn(|request| answer(handle.clone(), request, Arc::clone(&calls))),
        );
        let exchange = async {
            let (mut read, mut write) = tokio::io::split(&mut client);
            let mut answer = Vec::new();
            let send = async {
                // A server that has refused stops reading.
                let _ = write.write_all(bytes).await;
                let _ = write.shutdown().await;
            };
            let ((), received) = tokio::join!(send, read.read_to_end(&mut answer));
            received.unwrap();
            answer
        };
        let (result, answer) = tokio::join!(connection, exchange);
        (answer, result)
    });
    let calls = calls.lock().unwrap().clone();
    let answer = String::from_utf8(answer).unwrap();
    Outcome { calls, answer, parse_error: result.err().filter(hyper::Error::is_parse) }
}

pub(super) fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A client that has sent all it has still wants its answers.
    builder.half_close(true);
    GuardLimits::default().configure(&mut builder);
    builder
}

/// With a watchdog: a connection that hangs fails the test.
pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the connection hangs")
    })
}

/// Reads up to the end of a response head.
pub(super) async fn read_head(client: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn answer(
    handle: GuardHandle,
    request: Request<Incoming>,
    calls: Arc<Mutex<Vec<Call>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (call, status) = match handle.begin() {
        Err(violation) => (Call::Refused(violation), StatusCode::BAD_REQUEST),
        Ok(turn) => {
            let target = request.uri().to_string();
            if let Ok(body) = request.into_body().collect().await {
                (Call::Served { target, body: body.to_bytes().to_vec() }, StatusCode::OK)
            } else {
                let call = turn.body_violation().map_or(Call::BodyCutOff, Call::BodyRefused);
                (call, StatusCode::BAD_REQUEST)
            }
        }
    };
    calls.lock().unwrap().push(call);
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    Ok(response)
}
