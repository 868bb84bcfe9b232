//! The API behind the proxies: as quick as can be, so that it is never what is measured.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// How the upstream is called.
#[derive(clap::Args)]
pub struct Options {
    #[arg(long)]
    listen: SocketAddr,
}

const SMALL: &[u8] =
    br#"{"id":4711,"customer":"user-4711","total":"129.90","currency":"EUR","status":"shipped"}"#;

/// Serves until killed.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    let large = Bytes::from(vec![b'x'; 1024 * 1024]);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let large = large.clone();
        let service = service_fn(move |request| answer(request, large.clone()));
        tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, large: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_large = request.uri().path() == "/1m" && request.method() == hyper::Method::GET;
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let body = if is_large { large } else { Bytes::from_static(SMALL) };
    Ok(Response::builder()
        .header("content-type", "application/json")
        .body(Full::new(body))
        .unwrap_or_default())
}
