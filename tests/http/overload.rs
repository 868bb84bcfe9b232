//! A worker that is late: it takes on less, refuses what would wait for too long, and takes on all again when it has
//! caught up.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::recorder::PATIENCE;
use crate::setup::{CERTIFICATES, Gateway, yaml};
use crate::wire::{Answer, client_config, refused};

/// How many requests are made at once: more than a late worker takes on in two of its windows, and not so many that they
/// alone would make it late.
const WAVE: usize = 150;

/// Connections that keep the worker busy: so many more in each round, until it is late, and at the most.
const MORE: usize = 16;
const ROUNDS: usize = 32;

/// How often it is seen whether it has caught up, at the most.
const TRIES: usize = 200;

/// An API of HTTP/2 that answers nobody before it is told to, and how often it was asked for which path.
struct Api {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    gate: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Api {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, gate) = (Arc::<Mutex<Vec<String>>>::default(), watch::Sender::new(false));
        let (log, opened) = (Arc::clone(&asked), gate.subscribe());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, opened) = (Arc::clone(&log), opened.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    log.lock().unwrap().push(request.uri().path().to_owned());
                    let mut opened = opened.clone();
                    async move {
                        opened.wait_for(|open| *open).await.map(|_| Response::new(Empty::<Bytes>::new()))
                    }
                });
                let mut server = http2::Builder::new(TokioExecutor::new());
                server.max_concurrent_streams(100_000);
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, asked, gate, _serving: serving }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn open(&self) {
        self.gate.send_replace(true);
    }

    fn shut(&self) {
        self.gate.send_replace(false);
    }
}

/// A gateway whose requests without TLS are sent on to HTTPS: that costs it time, but no place and none waits in line for
/// it. It may take on far more requests than are made, so that none waits in line but for its being late.
async fn gateway(api: &Api) -> Gateway {
    let rest = format!(
        "upstreams: [{{ name: api, endpoints: ['http://{}'], protocol: http2, timeouts: {{ response: 5m, connect: 5m }} }}]\n\
         routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]\n\
         overload: {{ requests: 100000, delay: 1ms }}\n\
         limits: {{ concurrent_streams: 10000 }}\n",
        api.address
    );
    Gateway::start_exactly(&yaml(&rest).replace("plaintext: true", "redirect_to_https: true")).await
}

/// Asks without end, and takes in the answers without a look.
async fn keep_busy(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut answers, mut requests) = stream.split();
    let request = "GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    let asking = async { while requests.write_all(request.as_bytes()).await.is_ok() {} };
    tokio::join!(asking, async { tokio::io::copy(&mut answers, &mut tokio::io::sink()).await.ok() });
}

type Client = SendRequest<Empty<Bytes>>;

async fn client(address: SocketAddr) -> Client {
    let stream = TcpStream::connect(address).await.unwrap();
    let tls = TlsConnector::from(client_config(&CERTIFICATES.ca, b"h2"));
    let stream = tls.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The answer to a GET of the path of this number.
async fn ask(mut client: Client, number: usize) -> (usize, Answer) {
    let uri = format!("https://localhost/{number}");
    let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    let (head, body) = client.send_request(request).await.unwrap().into_parts();
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    (number, Answer { status: head.status.as_u16(), headers, body, ..Answer::default() })
}

fn shed(gateway: &Gateway, cause: &str) -> usize {
    let page = gateway.metrics();
    let name = format!("valgate_requests_shed_total{{cause=\"{cause}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&*name)).unwrap().parse().unwrap()
}

/// Waits until of this many requests each is either refused or with the API.
async fn decided(api: &Api, gateway: &Gateway, requests: usize) {
    let deciding = async {
        while api.asked().len() + shed(gateway, "delay") < requests {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(3 * PATIENCE, deciding).await.expect("all are decided on");
}

#[tokio::test]
async fn a_late_worker_refuses_what_would_wait_for_too_long_and_takes_on_all_again_when_it_has_caught_up() {
    let api = Api::start().await;
    let gateway = gateway(&api).await;
    let client = client(gateway.tls).await;
    let (mut busy, mut asking, mut asked) = (JoinSet::new(), JoinSet::new(), 0);
    // Whoever is served waits for the API, and so keeps a place.
    while shed(&gateway, "delay") == 0 {
        assert!(asked < ROUNDS * WAVE, "it is never late");
        (0..MORE).for_each(|_| drop(busy.spawn(keep_busy(gateway.plain))));
        (asked..asked + WAVE).for_each(|number| drop(asking.spawn(ask(client.clone(), number))));
        asked += WAVE;
        decided(&api, &gateway, asked).await;
    }
    busy.shutdown().await;
    api.open();

    let answers = asking.join_all().await;
    let (served, others): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(_, answer)| answer.status == 200);
    for (_, answer) in &others {
        refused(answer, 503, "VAL-064", "overloaded");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    let mut served: Vec<_> = served.into_iter().map(|(number, _)| format!("/{number}")).collect();
    let mut passed = api.asked();
    served.sort_unstable();
    passed.sort_unstable();
    assert_eq!(served, passed, "those that are served reach the API once, the others never");
    assert_eq!((shed(&gateway, "delay"), shed(&gateway, "requests")), (others.len(), 0));

    // It has more places than were taken when it was late.
    for round in 0.. {
        assert!(round < TRIES, "it is late for ever");
        let (before, mut asking) = (shed(&gateway, "delay"), JoinSet::new());
        api.shut();
        while asking.len() < served.len() + WAVE && shed(&gateway, "delay") == before {
            (asked..asked + WAVE).for_each(|number| drop(asking.spawn(ask(client.clone(), number))));
            asked += WAVE;
            decided(&api, &gateway, asked).await;
        }
        api.open();
        asking.join_all().await;
        if shed(&gateway, "delay") == before {
            break;
        }
    }
}
