//! Clients for what load generators do not show: connections made and held, and latency at a rate that is even.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
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

/// How `connect steady` is called.
#[derive(clap::Args)]
pub struct Steady {
    #[command(flatten)]
    to: To,
    /// Requests a second, of all connections together
    #[arg(long)]
    rate: f64,
    #[arg(long)]
    seconds: f64,
    #[arg(long, default_value_t = 20)]
    connections: u32,
    /// Without TLS
    #[arg(long)]
    plain: bool,
}

struct Client {
    config: Arc<ClientConfig>,
    address: SocketAddr,
    name: ServerName<'static>,
    request: String,
}

impl Client {
    fn new(to: &To, resume: bool) -> anyhow::Result<Self> {
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
        Ok(Self {
            config: Arc::new(config),
            address: to.address,
            name: ServerName::try_from(to.host.clone())?,
            request: format!("{head}Authorization: Bearer {}\r\n\r\n", to.token),
        })
    }

    /// A connection with one request and its response behind it.
    async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut stream =
            TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), stream).await?;
        stream.write_all(self.request.as_bytes()).await?;
        let mut received = Vec::with_capacity(2048);
        while !is_whole(&received)? {
            ensure!(stream.read_buf(&mut received).await? > 0, "the connection was closed");
        }
        Ok(stream)
    }

    /// How long the answers took, to requests that are sent when they are due.
    fn ask(
        &self,
        stream: &mut (impl Read + Write),
        due: impl Iterator<Item = Instant>,
    ) -> anyhow::Result<Vec<Duration>> {
        let mut taken = Vec::new();
        let mut received = vec![0; 16 * 1024];
        for due in due {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            stream.write_all(self.request.as_bytes())?;
            stream.flush()?;
            let mut len = 0;
            while !is_whole(&received[..len])? {
                let read = stream.read(&mut received[len..])?;
                ensure!(read > 0, "the connection was closed");
                len += read;
            }
            taken.push(sent.elapsed());
        }
        Ok(taken)
    }
}

/// Whether this is all of the answer, which must be a good one. The upstream's ends with its JSON object.
fn is_whole(received: &[u8]) -> anyhow::Result<bool> {
    if !received.ends_with(b"}") {
        return Ok(false);
    }
    ensure!(received.starts_with(b"HTTP/1.1 200"), "not a 200: {}", String::from_utf8_lossy(received));
    Ok(true)
}

/// Prints how many connections were made.
pub async fn repeat(options: Repeat) -> anyhow::Result<()> {
    let client = Rc::new(Client::new(&options.to, options.resume)?);
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

/// Prints the median of what the answers took, in microseconds. The connections take turns, each with a thread of its own
/// that sleeps until its next request is due: a timer that wakes all at once would measure how they queue.
pub fn steady(options: &Steady) -> anyhow::Result<()> {
    let client = Client::new(&options.to, false)?;
    let connections = options.connections;
    let between = Duration::from_secs_f64(1.0 / options.rate);
    let rounds = (options.rate * options.seconds / f64::from(connections)).ceil() as u32;
    // Behind all handshakes.
    let begin = Instant::now() + Duration::from_millis(500);
    let mut taken = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|connection| {
                let client = &client;
                scope.spawn(move || -> anyhow::Result<Vec<Duration>> {
                    let due = (0..rounds).map(|round| begin + between * (round * connections + connection));
                    let mut stream = std::net::TcpStream::connect(client.address)?;
                    stream.set_nodelay(true)?;
                    if options.plain {
                        return client.ask(&mut stream, due);
                    }
                    let session =
                        rustls::ClientConnection::new(Arc::clone(&client.config), client.name.clone())?;
                    client.ask(&mut rustls::StreamOwned::new(session, stream), due)
                })
            })
            .collect();
        let mut taken = Vec::new();
        for thread in threads {
            taken.append(&mut thread.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        anyhow::Ok(taken)
    })?;
    taken.sort_unstable();
    let median = taken.get(taken.len() / 2).context("nothing was asked")?;
    println!("{}", median.as_micros());
    Ok(())
}
