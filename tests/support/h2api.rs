//! A well-behaved HTTP/2 API that writes down what became of each request, and how many it had at a time.

#![allow(dead_code, reason = "no binary uses all of it")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Ping, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running API; dropping it closes its socket.
pub struct H2Api {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    gate: watch::Sender<bool>,
    leaving: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// What it answers `/large` with: more than sockets and buffers take in.
pub const LARGE: usize = 20_000_000;

/// How it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Behind the request, once [`H2Api::open`] is called.
    Last,
    /// With a head before the request has ended, and gRPC trailers behind it.
    First,
    /// With all of its answer before the request has ended, of which it reads the rest all the same.
    Early,
}

#[derive(Default)]
struct Log {
    calls: Vec<Call>,
    connections: usize,
    at_once: Vec<usize>,
    most_at_once: usize,
    told_to_leave: usize,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: String,
    /// Its connection's place among all.
    pub connection: usize,
    pub body: Vec<u8>,
    /// `Some(true)`: it came to its end; `Some(false)`: it was broken off.
    pub is_whole: Option<bool>,
    /// Nobody waits for its answer any more.
    pub is_left: bool,
}

impl H2Api {
    /// Takes this many streams on each connection, and says so.
    pub async fn start(streams: u32, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::<Mutex<Log>>::default();
        let gate = watch::Sender::new(false);
        let leaving = watch::Sender::new(false);
        let (shared, opened, leave) = (Arc::clone(&log), gate.subscribe(), leaving.subscribe());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let place = {
                    let mut log = shared.lock().unwrap();
                    log.connections += 1;
                    log.at_once.push(0);
                    log.connections - 1
                };
                // Who connects after that is not meant.
                let leave = (!*leave.borrow()).then(|| leave.clone());
                let serving =
                    serve(stream, streams, manner, place, Arc::clone(&shared), opened.clone(), leave);
                tokio::spawn(serving);
            }
        });
        Self { address, log, gate, leaving, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on whole requests are answered.
    pub fn open(&self) {
        self.gate.send_replace(true);
    }

    /// Has no further connection from now on, as a server that is full.
    pub async fn is_full(&self) {
        self.accepting.abort();
        while !self.accepting.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Tells all connections of this moment that they are to take no more requests, those that they have being served to
    /// their end; returns when the other side has got that.
    pub async fn go_away(&self) {
        let connections = self.connections();
        self.leaving.send_replace(true);
        let telling = async {
            while self.log.lock().unwrap().told_to_leave < connections {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), telling).await.expect("all are told");
    }

    pub fn calls(&self) -> Vec<Call> {
        self.log.lock().unwrap().calls.clone()
    }

    pub fn connections(&self) -> usize {
        self.log.lock().unwrap().connections
    }

    /// The most streams that any connection has had at a time.
    pub fn most_at_once(&self) -> usize {
        self.log.lock().unwrap().most_at_once
    }

    /// Waits until its calls are as asked for.
    pub async fn until(&self, what: &str, is: impl Fn(&[Call]) -> bool) {
        let asking = async {
            while !is(&self.calls()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(20), asking).await;
        assert!(came.is_ok(), "never: {what}; {:?}", self.calls());
    }
}

impl Drop for H2Api {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    stream: TcpStream,
    streams: u32,
    manner: Manner,
    place: usize,
    log: Arc<Mutex<Log>>,
    gate: watch::Receiver<bool>,
    mut leave: Option<watch::Receiver<bool>>,
) {
    let handshake = h2::server::Builder::new().max_concurrent_streams(streams).handshake(stream).await;
    let Ok(mut connection) = handshake else { return };
    let mut pings = connection.ping_pong();
    loop {
        let told = async {
            match &mut leave {
                Some(leave) => drop(leave.wait_for(|leave| *leave).await),
                None => std::future::pending().await,
            }
        };
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = told => {
                leave = None;
                connection.graceful_shutdown();
                let (pings, log) = (pings.take(), Arc::clone(&log));
                tokio::spawn(async move {
                    // Its answer comes behind that to the frames before it.
                    if let Some(mut pings) = pings && pings.ping(Ping::opaque()).await.is_ok() {
                        log.lock().unwrap().told_to_leave += 1;
                    }
                });
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { return };
        {
            let mut log = log.lock().unwrap();
            log.at_once[place] += 1;
            log.most_at_once = log.most_at_once.max(log.at_once[place]);
        }
        let (log, gate) = (Arc::clone(&log), gate.clone());
        tokio::spawn(async move {
            answer(request, respond, manner, place, &log, gate).await;
            log.lock().unwrap().at_once[place] -= 1;
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    manner: Manner,
    connection: usize,
    log: &Mutex<Log>,
    mut gate: watch::Receiver<bool>,
) {
    let number = {
        let mut log = log.lock().unwrap();
        let path = request.uri().path().to_owned();
        log.calls.push(Call { path, connection, body: Vec::new(), is_whole: None, is_left: false });
        log.calls.len() - 1
    };
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut sending = match manner {
        Manner::First => respond.send_response(head.clone(), false).ok(),
        Manner::Early => respond.send_response(Response::new(()), true).ok().and(None),
        Manner::Last => None,
    };
    let mut body = request.into_body();
    let is_whole = loop {
        match body.data().await {
            None => break body.trailers().await.is_ok(),
            Some(Err(_)) => break false,
            Some(Ok(data)) => {
                let _ = body.flow_control().release_capacity(data.len());
                log.lock().unwrap().calls[number].body.extend_from_slice(&data);
            }
        }
    };
    log.lock().unwrap().calls[number].is_whole = Some(is_whole);
    if !is_whole {
        return;
    }
    if manner == Manner::Last {
        let is_reset = std::future::poll_fn(|context| respond.poll_reset(context));
        tokio::select! {
            _ = is_reset => {
                log.lock().unwrap().calls[number].is_left = true;
                return;
            }
            opened = gate.wait_for(|open| *open) => assert!(opened.is_ok()),
        }
        sending = respond.send_response(head, false).ok();
    }
    let is_large = log.lock().unwrap().calls[number].path == "/large";
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    if let Some(mut sending) = sending {
        let body = if is_large { Bytes::from(vec![b'x'; LARGE]) } else { Bytes::from_static(b"ok") };
        let _ = sending.send_data(body, false);
        let _ = sending.send_trailers(trailers);
    }
}
