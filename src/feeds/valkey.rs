//! Connections to a Valkey or Redis: always to the primary, whoever that is at the moment.
//!
//! All keys of one list live in one slot, so a cluster is to us what Sentinels are: somebody who knows where the
//! primary is. Either way there is one plain connection to it, which is given up at the first error, and the primary is
//! looked for anew. Knows nothing of revocations.

use std::fs;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, FromRedisValue,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, TlsCertificates, Value, cmd,
};

use tokio::task::JoinSet;

use crate::config::settings::{EngineTls, HostPort, Valkey, ValkeyCredentials, ValkeyTopology};
use crate::revocation::EngineError;

/// Finds the primary and connects to it.
#[derive(Clone, Debug)]
pub(super) struct ValkeyConnector {
    settings: Valkey,
    /// A key of the list, which tells the slot.
    key: String,
}

/// Who one is to a server, and which of its databases one wants.
#[derive(Clone, Copy)]
struct Login<'a> {
    credentials: Option<&'a ValkeyCredentials>,
    database: u16,
}

/// A connection to a server that was the primary when it was made.
#[derive(Debug)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    address: HostPort,
    timeout: Duration,
}

impl ValkeyConnector {
    pub(super) fn new(settings: Valkey, key: impl Into<String>) -> Self {
        Self { settings, key: key.into() }
    }

    /// What it connects to, for logs and to tell one engine from another.
    pub(super) fn place(&self) -> String {
        let (kind, addresses): (&str, &[HostPort]) = match &self.settings.topology {
            ValkeyTopology::Single(address) => ("valkey", std::slice::from_ref(address)),
            ValkeyTopology::Cluster(nodes) => ("valkey cluster", nodes),
            ValkeyTopology::Sentinel { addresses, .. } => ("valkey by sentinel", addresses),
        };
        let addresses: Vec<String> = addresses.iter().map(HostPort::to_string).collect();
        format!("{kind} {} database {}", addresses.join(" "), self.settings.database)
    }

    /// A connection to the primary.
    pub(super) async fn connect(&self) -> Result<Link, EngineError> {
        let address = self.primary().await?;
        let mut link = self.open(&address, self.login()).await?;
        link.check_is_primary().await?;
        Ok(link)
    }

    /// Whether the link still leads to the primary, by its own word and by that of whoever watches over it.
    pub(super) async fn check(&self, link: &mut Link) -> Result<(), EngineError> {
        link.check_is_primary().await?;
        if !matches!(self.settings.topology, ValkeyTopology::Sentinel { .. }) {
            // A node of a cluster stops serving when it is cut off, and says so when it hands a slot over.
            return Ok(());
        }
        let address = self.primary().await?;
        if address == link.address {
            return Ok(());
        }
        Err(EngineError::Unavailable(format!("{} is no longer the primary, {address} is", link.address)))
    }

    /// Who answers first among those who know.
    async fn primary(&self) -> Result<HostPort, EngineError> {
        let knowing = match &self.settings.topology {
            ValkeyTopology::Single(address) => return Ok(address.clone()),
            ValkeyTopology::Cluster(addresses) | ValkeyTopology::Sentinel { addresses, .. } => addresses,
        };
        let mut asking = JoinSet::new();
        for address in knowing.clone() {
            let this = self.clone();
            asking.spawn(async move { this.ask_for_primary(&address).await });
        }
        let mut last = None;
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok(Ok(primary)) => return Ok(primary),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {}
            }
        }
        // The configuration has at least one.
        Err(last
            .unwrap_or_else(|| EngineError::Unavailable("there is nobody to ask for the primary".to_owned())))
    }

    async fn ask_for_primary(&self, address: &HostPort) -> Result<HostPort, EngineError> {
        let login = if let ValkeyTopology::Sentinel { credentials, .. } = &self.settings.topology {
            // It has no databases.
            Login { credentials: credentials.as_ref(), database: 0 }
        } else {
            self.login()
        };
        let mut link = self.open(address, login).await?;
        let found = if let ValkeyTopology::Sentinel { primary, .. } = &self.settings.topology {
            let answer: Option<(String, u16)> =
                link.query(cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(primary)).await?;
            answer.map(|(host, port)| HostPort { host, port })
        } else {
            let slot: i64 = link.query(cmd("CLUSTER").arg("KEYSLOT").arg(&self.key)).await?;
            let ranges: Vec<Value> = link.query(cmd("CLUSTER").arg("SLOTS")).await?;
            owner(&ranges, slot, &address.host)
        };
        found.ok_or_else(|| {
            EngineError::Unavailable(format!(
                "{address} knows no primary; check the configured name, or the cluster"
            ))
        })
    }

    fn login(&self) -> Login<'_> {
        Login { credentials: self.settings.credentials.as_ref(), database: self.settings.database }
    }

    async fn open(&self, address: &HostPort, login: Login<'_>) -> Result<Link, EngineError> {
        let unusable = |error: RedisError| {
            EngineError::Unavailable(format!(
                "the connection to {address} cannot be set up: {}",
                said(&error)
            ))
        };
        let client = self.client(address, login)?;
        let timeout = self.settings.timeout;
        // The library bounds connecting; TLS and the greeting are bounded here. Answers are bounded one by one.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(timeout, connecting).await {
            Ok(Ok(connection)) => Ok(Link { connection, address: address.clone(), timeout }),
            Ok(Err(error)) => Err(unusable(error)),
            Err(_) => Err(silent(address, timeout)),
        }
    }

    fn client(&self, address: &HostPort, login: Login<'_>) -> Result<Client, EngineError> {
        let unusable = |error: &RedisError| EngineError::Unavailable(said(error));
        let HostPort { host, port } = address.clone();
        let tls = self.settings.tls.as_ref();
        let place = match tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let mut greeting = RedisConnectionInfo::default().set_db(i64::from(login.database));
        if let Some(ValkeyCredentials { username, password }) = login.credentials {
            greeting = greeting.set_password(password.expose());
            if let Some(username) = username {
                greeting = greeting.set_username(username);
            }
        }
        let info =
            place.into_connection_info().map_err(|error| unusable(&error))?.set_redis_settings(greeting);
        match tls {
            None => Client::open(info).map_err(|error| unusable(&error)),
            Some(tls) => Client::build_with_tls(info, certificates(tls)?).map_err(|error| unusable(&error)),
        }
    }
}

impl Link {
    /// The answer to a command, within the time-out.
    pub(super) async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, EngineError> {
        self.query_held_back(command, Duration::ZERO).await
    }

    /// The answer to a command that the server may hold back for so long.
    pub(super) async fn query_held_back<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
        held_back: Duration,
    ) -> Result<T, EngineError> {
        let timeout = self.timeout;
        let answering = self.connection.req_packed_command(command);
        // An answer may be the server's refusal.
        let answering = async { answering.await?.extract_error() };
        match tokio::time::timeout(timeout.saturating_add(held_back), answering).await {
            Ok(Ok(answer)) => T::from_redis_value(answer).map_err(|error| {
                EngineError::Unavailable(format!("{} answers what it should not: {error}", self.address))
            }),
            Ok(Err(error)) => Err(EngineError::Unavailable(format!("{}: {}", self.address, said(&error)))),
            Err(_) => Err(silent(&self.address, timeout)),
        }
    }

    async fn check_is_primary(&mut self) -> Result<(), EngineError> {
        let role: Vec<Value> = self.query(&cmd("ROLE")).await?;
        if matches!(role.first(), Some(Value::BulkString(role)) if role == b"master") {
            return Ok(());
        }
        let message = format!(
            "{} is a replica, which may be behind; configure the primary, or Sentinels",
            self.address
        );
        Err(EngineError::Unavailable(message))
    }
}

/// The owner of a slot by the answer to CLUSTER SLOTS. A node that does not know its own address gives none.
fn owner(ranges: &[Value], slot: i64, asked: &str) -> Option<HostPort> {
    let primary = ranges.iter().find_map(|range| match range {
        Value::Array(range) => match range.as_slice() {
            [Value::Int(first), Value::Int(last), primary, ..] if (*first..=*last).contains(&slot) => {
                Some(primary)
            }
            _ => None,
        },
        _ => None,
    })?;
    let Value::Array(primary) = primary else { return None };
    let [host, Value::Int(port), ..] = primary.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
        _ => asked.to_owned(),
    };
    Some(HostPort { host, port: u16::try_from(*port).ok()? })
}

fn certificates(tls: &EngineTls) -> Result<TlsCertificates, EngineError> {
    let read = |path: &std::path::PathBuf| {
        fs::read(path).map_err(|error| {
            EngineError::Unavailable(format!(
                "{} cannot be read: {error}; check the path and its permissions",
                path.display()
            ))
        })
    };
    let client_tls = match &tls.client_certificate {
        None => None,
        Some((certificate, private_key)) => {
            Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(private_key)? })
        }
    };
    Ok(TlsCertificates { client_tls, root_cert: tls.ca.as_ref().map(read).transpose()? })
}

/// What the library says, with what an operator does about it.
fn said(error: &RedisError) -> String {
    let advice = match error.code() {
        Some("NOPERM") => "; the ACL user lacks a right, see docs/revocation-valkey.md",
        Some("NOAUTH") => "; check username and password",
        _ if error.kind() == ErrorKind::AuthenticationFailed => "; check username and password",
        _ if error.is_io_error() => "; check address, network and certificate",
        _ => "",
    };
    format!("{error}{advice}")
}

fn silent(address: &HostPort, timeout: Duration) -> EngineError {
    EngineError::Unavailable(format!("{address} did not answer within {timeout:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_slot_is_found_and_nonsense_has_none() {
        let node = |host: &[u8], port| Value::Array(vec![Value::BulkString(host.to_vec()), Value::Int(port)]);
        let range = |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let ranges = [
            Value::Nil,
            range(0, 99, node(b"a", 1)),
            range(100, 200, node(b"", 2)),
            range(201, 300, Value::Nil),
            range(301, 400, node(b"c", 70_000)),
        ];
        let found = |slot| owner(&ranges, slot, "asked").map(|owner| owner.to_string());
        assert_eq!(
            [99, 100, 200].map(found),
            ["a:1", "asked:2", "asked:2"].map(|owner| Some(owner.to_owned()))
        );
        assert_eq!([250, 350, 500].map(found), [const { None }; 3]);
    }
}
