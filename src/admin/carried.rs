//! Probes of the application behind the gateway, carried to it over loopback.
//!
//! Where only the gateway may reach the application, the kubelet may not either, and its probes would fail. It asks the
//! health listener instead, which is open to everyone: so each path leads to one address that the operator named, on
//! loopback, and nothing of the answer comes back but its status.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::{self, Answer, TEXT};
use crate::config::settings::CarriedProbe;

/// Asks the application, with the headers of the probe.
pub async fn carry(probe: &CarriedProbe, headers: &HeaderMap) -> Answer {
    match timeout(PATIENCE, ask(probe, headers)).await {
        Ok(Ok(status)) => answer::of(status, TEXT, format!("The application answered {status}.\n")),
        Ok(Err(error)) => answer::of(StatusCode::BAD_GATEWAY, TEXT, format!("{error}\n")),
        Err(_) => answer::of(StatusCode::GATEWAY_TIMEOUT, TEXT, "The application does not answer.\n"),
    }
}

async fn ask(probe: &CarriedProbe, headers: &HeaderMap) -> Result<StatusCode, AskError> {
    let stream = TcpStream::connect(probe.address).await.map_err(AskError::Connect)?;
    let Some(target) = &probe.target else { return Ok(StatusCode::OK) };
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target.parse().map_err(|_| AskError::Broken)?;
    *request.headers_mut() = headers.clone();
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE] {
        request.headers_mut().remove(name);
    }
    let host = probe.address.to_string().try_into().map_err(|_| AskError::Broken)?;
    request.headers_mut().insert(HOST, host);
    let (mut sender, connection) =
        http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|_| AskError::Broken)?;
    // The body, if any, is not read: the connection ends with this answer.
    tokio::select! {
        response = sender.send_request(request) => {
            response.map(|response| response.status()).map_err(|_| AskError::Broken)
        }
        never = drive(connection) => match never {},
    }
}

/// Drives a connection for as long as somebody waits for its answer.
async fn drive<C: Future>(connection: C) -> Infallible {
    connection.await;
    std::future::pending().await
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("The application cannot be reached: {0}.")]
    Connect(std::io::Error),
    #[error("The application's answer is not HTTP.")]
    Broken,
}

/// The kubelet's own patience is 1 s unless the probe says more.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_applications_status_comes_back_and_nothing_else() {
        let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = application.local_addr().unwrap();
        let received = tokio::spawn(async move {
            let (mut stream, _) = application.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            let answer = b"HTTP/1.1 503 Starting\r\nContent-Length: 6\r\nX-Secret: s\r\n\r\nsecret";
            stream.write_all(answer).await.unwrap();
            String::from_utf8(head[..length].to_vec()).unwrap()
        });
        let probe: CarriedProbe = format!("/probes/a/ready=http://{address}/ready?deep=1").parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-probe", "1".parse().unwrap());
        headers.insert(HOST, "10.0.0.7:8081".parse().unwrap());
        headers.insert(TRANSFER_ENCODING, "chunked".parse().unwrap());

        let answer = carry(&probe, &headers).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers().get("x-secret"), None);
        let received = received.await.unwrap().to_lowercase();
        assert!(received.starts_with("get /ready?deep=1 http/1.1\r\n"), "{received}");
        assert!(received.contains("x-probe: 1\r\n") && received.contains(&format!("host: {address}\r\n")));
        assert!(!received.contains("chunked"), "{received}");
    }

    #[tokio::test]
    async fn an_application_that_is_not_there_is_told_apart() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for target in [format!("http://{gone}/"), format!("tcp://{gone}")] {
            let probe: CarriedProbe = format!("/probes/a/up={target}").parse().unwrap();
            assert_eq!(carry(&probe, &HeaderMap::new()).await.status(), StatusCode::BAD_GATEWAY);
        }
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probe: CarriedProbe =
            format!("/probes/a/up=tcp://{}", open.local_addr().unwrap()).parse().unwrap();
        assert_eq!(carry(&probe, &HeaderMap::new()).await.status(), StatusCode::OK);
    }
}
