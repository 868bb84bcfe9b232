//! Connections to NATS, and the key-value bucket that holds a list.
//!
//! The library would reconnect by itself for ever; here a connection is given up at the first error, since what it
//! missed meanwhile is for us to find out. Knows nothing of revocations.

use std::fmt::Display;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{CreateStreamError, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, StorageType, Stream};
use async_nats::{ConnectOptions, ServerAddr, jetstream};

use super::fetch::{ClientCertificate, TrustAnchors, client_config};
use crate::config::settings::{EngineTls, HostPort, Nats, NatsCredentials};
use crate::revocation::EngineError;

/// Connects to a NATS system for the sake of one bucket.
#[derive(Clone, Debug)]
pub(super) struct NatsConnector {
    settings: Nats,
    bucket: String,
}

impl NatsConnector {
    pub(super) fn new(settings: Nats, bucket: String) -> Self {
        Self { settings, bucket }
    }

    /// What it connects to, for logs and to tell one engine from another.
    pub(super) fn place(&self) -> String {
        let servers: Vec<String> = self.settings.servers.iter().map(HostPort::to_string).collect();
        format!("nats {} bucket {}", servers.join(" "), self.bucket)
    }

    /// The subject of a key of the bucket.
    pub(super) fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }

    /// A connection to one of the servers.
    pub(super) async fn connect(&self) -> Result<Context, EngineError> {
        let Nats { servers, credentials, tls, timeout } = &self.settings;
        let mut options = match credentials {
            NatsCredentials::None => ConnectOptions::new(),
            NatsCredentials::User { username, password } => {
                ConnectOptions::with_user_and_password(username.clone(), password.expose().to_owned())
            }
            NatsCredentials::Token(token) => ConnectOptions::with_token(token.expose().to_owned()),
            NatsCredentials::NKey(seed) => ConnectOptions::with_nkey(seed.expose().to_owned()),
            NatsCredentials::File(text) => {
                // Read as a secret it has lost its last line end, without which the library does not see its last part.
                let text = format!("{}\n", text.expose());
                ConnectOptions::with_credentials(&text).map_err(|_| {
                    unavailable("the credentials file is none; nsc writes one with `nsc generate creds`")
                })?
            }
        };
        options = options
            .name("valgate")
            .connection_timeout(*timeout)
            .request_timeout(Some(*timeout))
            .max_reconnects(servers.len())
            .ignore_discovered_servers();
        if let Some(tls) = tls {
            options = options.require_tls(true).tls_client_config(tls_config(tls)?);
        }
        let addresses = servers.iter().map(|server| server.to_string().parse::<ServerAddr>());
        let addresses =
            addresses.collect::<Result<Vec<_>, _>>().map_err(|error| unavailable(&error.to_string()))?;
        match tokio::time::timeout(*timeout, options.connect(addresses)).await {
            Ok(Ok(client)) => {
                let mut context = jetstream::new(client);
                context.set_timeout(*timeout);
                Ok(context)
            }
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_) => Err(self.failed(format!("no answer within {timeout:?}"))),
        }
    }

    /// The stream that is the bucket.
    pub(super) async fn stream(&self, context: &Context) -> Result<Option<Stream<Info>>, EngineError> {
        match context.get_stream(self.stream_name()).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Makes the bucket, with one replica; who wants more makes it beforehand.
    pub(super) async fn create(&self, context: &Context) -> Result<Stream<Info>, EngineError> {
        let config = Config {
            name: self.stream_name(),
            subjects: vec![self.subject(">")],
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            allow_message_ttl: true,
            num_replicas: 1,
            ..Config::default()
        };
        context.create_stream(config).await.map_err(|error: CreateStreamError| self.failed(error))
    }

    pub(super) fn missing(&self) -> EngineError {
        let bucket = &self.bucket;
        unavailable(&format!(
            "there is no key-value bucket {bucket}; create it with `nats kv add {bucket} --marker-ttl 24h`, or let \
             `valgate revoke` create it"
        ))
    }

    pub(super) fn failed(&self, error: impl Display) -> EngineError {
        unavailable(&format!("{}: {error}; check servers, credentials and permissions", self.place()))
    }

    fn stream_name(&self) -> String {
        format!("KV_{}", self.bucket)
    }
}

fn is_missing(error: &GetStreamError) -> bool {
    let code = async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND;
    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == code)
}

fn tls_config(tls: &EngineTls) -> Result<rustls::ClientConfig, EngineError> {
    let ca = tls.ca.clone().map(TrustAnchors::File);
    let client = tls.client_certificate.clone();
    let client = client.map(|(certificate, private_key)| ClientCertificate { certificate, private_key });
    client_config(ca.as_ref(), client.as_ref()).map_err(|error| unavailable(&error.to_string()))
}

fn unavailable(why: &str) -> EngineError {
    EngineError::Unavailable(why.to_owned())
}
