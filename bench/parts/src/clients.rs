//! Clients that make TLS connections, for what load generators with keep-alive do not show.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where connections go and what they send.
#[derive(clap::Args)]
struct To {
    #[arg(long)]
    address: SocketAddr,
    /// The certificate to trust
    #[arg(long)]
    certificate: PathBuf,
    #[arg(long)]
    host: String,
    #[arg(long)]
    token: String,
}

/// How `connect repeat` is called.
#[derive(clap::Args)]
pub struct Repeat {
    #[command(flatten)]
    to: To,
    #[arg(long)]
    seconds: f64,
    #[arg(long, default_value_t = 16)]
    tasks: usize,
    /// Resume a session where the server gave a ticket
    #[arg(long)]
    resume: bool,
}

/// How `connect hold` is called.
#[derive(clap::Args)]
pub struct Hold {
    #[command(flatten)]
    to: To,
    #[arg(long)]
    connections: usize,
}

struct Client {
    connector: TlsConnector,
    address: SocketAddr,
    name: ServerName<'static>,
    request: String,
}

impl Client {
    fn new(to: &To, resume: bool) -> anyhow::Result<Rc<Self>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&to.certificate)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if !resume {
            config.resumption = Resumption::disabled();
        }
        let head = format!("GET /orders/4711 HTTP/1.1\r\nHost: {}\r\n", to.host);
        Ok(Rc::new(Self {
            connector: TlsConnector::from(Arc::new(config)),
            address: to.address,
            name: ServerName::try_from(to.host.clone())?,
            request: format!("{head}Authorization: Bearer {}\r\n\r\n", to.token),
        }))
    }

    /// A connection with one request and its response behind it.
    async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut stream = self.connector.connect(self.name.clone(), stream).await?;
        stream.write_all(self.request.as_bytes()).await?;
        let mut received = Vec::with_capacity(2048);
        // The upstream's answer ends with its JSON object.
        while !received.ends_with(b"}") {
            ensure!(stream.read_buf(&mut received).await? > 0, "the connection was closed");
        }
        ensure!(received.starts_with(b"HTTP/1.1 200"), "not a 200: {}", String::from_utf8_lossy(&received));
        Ok(stream)
    }
}

/// Prints how many connections were made.
pub async fn repeat(options: Repeat) -> anyhow::Result<()> {
    let client = Client::new(&options.to, options.resume)?;
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let made = Rc::new(Cell::new(0_u64));
    let tasks: Vec<_> = (0..options.tasks)
        .map(|_| {
            let (client, made) = (Rc::clone(&client), Rc::clone(&made));
            tokio::task::spawn_local(async move {
                while Instant::now() < end {
                    client.connect().await?;
                    made.set(made.get() + 1);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    println!("{}", made.get());
    Ok(())
}

/// Says `ready` when all connections stand.
pub async fn hold(options: Hold) -> anyhow::Result<()> {
    let client = Client::new(&options.to, false)?;
    let mut held = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        held.push(client.connect().await?);
    }
    println!("ready");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
