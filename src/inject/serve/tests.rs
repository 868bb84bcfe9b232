use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const REVIEW: &str = include_str!("../../../tests/deploy/admission/pod-create.json");

/// A client of one connection, without TLS.
struct Client(DuplexStream);

impl Client {
    /// Clients that share their memory.
    fn new(memory: &Arc<Semaphore>) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(converse(far, Arc::clone(memory)));
        Self(near)
    }

    /// Announces a review; the server asks for it once there is room.
    async fn announce(&mut self, size: &str) {
        let head =
            format!("POST /mutate HTTP/1.1\r\nhost: webhook\r\nexpect: 100-continue\r\n{size}\r\n\r\n");
        self.0.write_all(head.as_bytes()).await.unwrap();
    }

    async fn post(&mut self, body: &[u8]) -> (u16, Vec<u8>) {
        let head =
            format!("POST /mutate HTTP/1.1\r\nhost: webhook\r\ncontent-length: {}\r\n\r\n", body.len());
        self.0.write_all(head.as_bytes()).await.unwrap();
        self.0.write_all(body).await.unwrap();
        answer_on(&mut self.0).await
    }
}

/// Status and body of the next answer.
async fn answer_on(stream: &mut (impl AsyncRead + Unpin)) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (head[9..12].parse().unwrap(), body)
}

#[tokio::test]
async fn a_review_is_answered_and_the_kubelet_too() {
    let memory = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut client = Client::new(&memory);
    let (status, answer) = client.post(REVIEW.as_bytes()).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(true)));
    assert!(answer["response"]["patch"].is_string());
    assert_eq!(client.post(b"{}").await.0, 400);
    // Both are answered and sent.
    while memory.available_permits() < MAX_IN_FLIGHT {
        yield_now().await;
    }
    client.0.write_all(b"GET /healthz HTTP/1.1\r\nhost: webhook\r\n\r\n").await.unwrap();
    assert_eq!(answer_on(&mut client.0).await, (200, b"ok\n".to_vec()));
    client.0.write_all(b"GET /mutate HTTP/1.1\r\nhost: webhook\r\n\r\n").await.unwrap();
    assert_eq!(answer_on(&mut client.0).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_body_has_a_bound() {
    let memory = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    // Refused by its announcement, without being asked for.
    let mut client = Client::new(&memory);
    client.announce(&format!("content-length: {}", MAX_REVIEW + 1)).await;
    assert_eq!(answer_on(&mut client.0).await, (413, TOO_LARGE.into()));

    // One that does not say how large it is.
    let mut client = Client::new(&memory);
    client.announce("transfer-encoding: chunked").await;
    assert_eq!(answer_on(&mut client.0).await.0, 100);
    let (mut reading, mut writing) = tokio::io::split(client.0);
    let sending = async {
        writing.write_all(format!("{:x}\r\n", MAX_REVIEW + 1).as_bytes()).await?;
        writing.write_all(&vec![b' '; MAX_REVIEW as usize + 1]).await
    };
    // The server may hang up before it has read all.
    let (_, answer) = tokio::join!(sending, answer_on(&mut reading));
    assert_eq!(answer, (413, TOO_LARGE.into()));

    // As many values as would fill the memory many times over.
    let mut review: Value = serde_json::from_str(REVIEW).unwrap();
    review["request"]["object"] = json!(vec![0; MAX_PARTS]);
    let (status, why) = Client::new(&memory).post(review.to_string().as_bytes()).await;
    assert_eq!((status, why.as_slice()), (413, b"The review has too many parts.\n".as_slice()));
}

#[tokio::test(start_paused = true)]
async fn all_bodies_together_have_a_bound() {
    let memory = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let largest = format!("content-length: {MAX_REVIEW}");
    let mut slow = [Client::new(&memory), Client::new(&memory)];
    for client in &mut slow {
        client.announce(&largest).await;
        assert_eq!(answer_on(&mut client.0).await.0, 100);
    }
    assert_eq!(memory.available_permits(), 0);
    // There is no room for a third, not even for a small one.
    let (status, why) = Client::new(&memory).post(b"{}").await;
    assert_eq!((status, why.as_slice()), (503, b"Too many reviews at once; try again.\n".as_slice()));
    // Those that hold it are not waited for without end.
    for client in &mut slow {
        assert_eq!(answer_on(&mut client.0).await.0, 408);
    }
    assert_eq!(memory.available_permits(), MAX_IN_FLIGHT);
    assert_eq!(Client::new(&memory).post(REVIEW.as_bytes()).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_keeps_its_room() {
    let memory = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut review: Value = serde_json::from_str(REVIEW).unwrap();
    // Comes back in the patch, and does not fit between the two.
    review["request"]["object"]["spec"]["containers"][0]["args"] = json!(["a".repeat(1024 * 1024)]);
    let review = review.to_string();
    let mut client = Client::new(&memory);
    client.announce(&format!("content-length: {}", review.len())).await;
    assert_eq!(answer_on(&mut client.0).await.0, 100);
    client.0.write_all(review.as_bytes()).await.unwrap();
    // Once the answer begins, the review has been read.
    let first = client.0.read_u8().await.unwrap();
    assert_eq!((first, memory.available_permits()), (b'H', MAX_IN_FLIGHT - review.len()));
    client.0.read_exact(&mut vec![0; 1024 * 1024]).await.unwrap();
    drop(client);
    while memory.available_permits() < MAX_IN_FLIGHT {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_connection_is_held_for_ever() {
    let memory = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    for said in ["", "GET /healthz HTTP/1.1\r\n"] {
        let mut client = Client::new(&memory);
        client.0.write_all(said.as_bytes()).await.unwrap();
        client.0.read_to_end(&mut Vec::new()).await.unwrap();
    }
    let mut client = Client::new(&memory);
    let pause = Duration::from_secs(7);
    let mut answers = 0;
    loop {
        _ = client.0.write_all(b"GET /healthz HTTP/1.1\r\nhost: webhook\r\n\r\n").await;
        if client.0.read(&mut [0; 1024]).await.unwrap() == 0 {
            break;
        }
        answers += 1;
        sleep(pause).await;
    }
    assert_eq!(answers, 1 + MAX_AGE.as_secs() / pause.as_secs());
}

/// Connects, by TLS.
async fn connect(address: std::net::SocketAddr, client: Arc<rustls::ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(client).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

#[tokio::test]
async fn connections_have_a_bound() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let server = Arc::new(server);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_at_most(1, listener, move || Arc::clone(&server)));
    let mut first = connect(address, Arc::clone(&client)).await;
    let second = tokio::spawn(connect(address, client));
    for _ in 0..20 {
        first.write_all(b"GET /healthz HTTP/1.1\r\nhost: webhook\r\n\r\n").await.unwrap();
        assert_eq!(answer_on(&mut first).await.0, 200);
    }
    assert!(!second.is_finished(), "the second has no place while the first has it");
    drop(first);
    let mut second = second.await.unwrap();
    second.write_all(b"GET /healthz HTTP/1.1\r\nhost: webhook\r\n\r\n").await.unwrap();
    assert_eq!(answer_on(&mut second).await.0, 200);
}
