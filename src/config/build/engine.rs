//! Engines that a fleet shares.

use super::Build;
use super::values::{MINUTE, SECOND};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::raw::SecretText;
use crate::config::settings::{
    EngineTls, FeedSource, HostPort, Nats, NatsCredentials, Secret, Valkey, ValkeyCredentials, ValkeyTopology,
};

impl Build<'_, '_> {
    pub(super) fn valkey_feed(&mut self, raw: &raw::Valkey, place: &Place) -> Option<FeedSource> {
        let (valkey, prefix) = self.valkey(raw, "valgate:revocations", place)?;
        Some(FeedSource::Valkey { valkey, prefix })
    }

    pub(super) fn nats_feed(&mut self, raw: &raw::NatsFeed, place: &Place) -> Option<FeedSource> {
        let bucket = self.bucket(&raw.bucket, &place.field("bucket"));
        let nats = self.nats(raw, place);
        Some(FeedSource::Nats { nats: nats?, bucket: bucket? })
    }

    /// A Valkey, and what the names of its keys begin with.
    pub(super) fn valkey(
        &mut self,
        raw: &raw::Valkey,
        usual_prefix: &str,
        place: &Place,
    ) -> Option<(Valkey, String)> {
        let prefix = self.key_prefix(raw.prefix.as_deref().unwrap_or(usual_prefix), &place.field("prefix"));
        let one = self.exactly_one(
            place,
            &[
                ("address", raw.address.is_some()),
                ("cluster", raw.cluster.is_some()),
                ("sentinel", raw.sentinel.is_some()),
            ],
        );
        let encrypted = raw.tls.is_some() || raw.insecure_allow_plaintext;
        let topology = one.and_then(|()| self.valkey_topology(raw, place, encrypted));
        let most = if raw.cluster.is_some() { 0 } else { u64::from(u16::MAX) };
        let database = self.count(raw.database, &place.field("database"), 0, most);
        let credentials = self.valkey_credentials(raw.username.as_ref(), raw.password.as_ref(), place);
        let tls = self.optional(raw.tls.as_ref(), |build, raw| build.engine_tls(raw, &place.field("tls")));
        let timeout = self.duration(&raw.timeout, &place.field("timeout"), SECOND / 10, MINUTE);
        let valkey = Valkey {
            topology: topology?,
            database: u16::try_from(database?).ok()?,
            credentials: credentials?,
            tls: tls?,
            timeout: timeout?,
        };
        Some((valkey, prefix?))
    }

    fn valkey_topology(
        &mut self,
        raw: &raw::Valkey,
        place: &Place,
        encrypted: bool,
    ) -> Option<ValkeyTopology> {
        if let Some(address) = &raw.address {
            return self.host_port(address, &place.field("address"), encrypted).map(ValkeyTopology::Single);
        }
        if let Some(nodes) = &raw.cluster {
            return self.host_ports(nodes, &place.field("cluster"), encrypted).map(ValkeyTopology::Cluster);
        }
        let (raw, place) = (raw.sentinel.as_ref()?, place.field("sentinel"));
        if raw.primary.is_empty() {
            let remedy = "write the name from `sentinel monitor NAME ...`";
            self.mistakes.add(&place.field("primary"), "the name is empty", remedy);
            return None;
        }
        let addresses = self.host_ports(&raw.addresses, &place.field("addresses"), encrypted);
        let credentials = self.valkey_credentials(raw.username.as_ref(), raw.password.as_ref(), &place);
        Some(ValkeyTopology::Sentinel {
            primary: raw.primary.clone(),
            addresses: addresses?,
            credentials: credentials?,
        })
    }

    fn valkey_credentials(
        &mut self,
        username: Option<&String>,
        password: Option<&SecretText>,
        place: &Place,
    ) -> Option<Option<ValkeyCredentials>> {
        match (username, password) {
            (None, None) => Some(None),
            (Some(_), None) => {
                let remedy = "add `password: ${VALKEY_PASSWORD}`, or remove `username`";
                self.mistakes.add(&place.field("username"), "there is a user but no password", remedy);
                None
            }
            (username, Some(password)) => {
                let password = self.password(password, &place.field("password"))?;
                Some(Some(ValkeyCredentials { username: username.cloned(), password }))
            }
        }
    }

    fn nats(&mut self, raw: &raw::NatsFeed, place: &Place) -> Option<Nats> {
        let encrypted = raw.tls.is_some() || raw.insecure_allow_plaintext;
        let servers = self.host_ports(&raw.servers, &place.field("servers"), encrypted);
        let credentials = self.nats_credentials(raw, place);
        let tls = self.optional(raw.tls.as_ref(), |build, raw| build.engine_tls(raw, &place.field("tls")));
        let timeout = self.duration(&raw.timeout, &place.field("timeout"), SECOND / 10, MINUTE);
        Some(Nats { servers: servers?, credentials: credentials?, tls: tls?, timeout: timeout? })
    }

    fn nats_credentials(&mut self, raw: &raw::NatsFeed, place: &Place) -> Option<NatsCredentials> {
        let user = raw.username.is_some() || raw.password.is_some();
        let ways = [
            ("username", user),
            ("token", raw.token.is_some()),
            ("nkey", raw.nkey.is_some()),
            ("credentials", raw.credentials.is_some()),
        ];
        if ways.iter().all(|(_, given)| !given) {
            return Some(NatsCredentials::None);
        }
        self.exactly_one(place, &ways)?;
        let mut secret = |text: &Option<SecretText>, field| {
            text.as_ref().and_then(|text| self.password(text, &place.field(field)))
        };
        let other = secret(&raw.token, "token")
            .map(NatsCredentials::Token)
            .or_else(|| secret(&raw.nkey, "nkey").map(NatsCredentials::NKey))
            .or_else(|| secret(&raw.credentials, "credentials").map(NatsCredentials::File));
        if !user {
            return other;
        }
        let (Some(username), Some(password)) = (&raw.username, &raw.password) else {
            let remedy = "give both, or another kind of credentials";
            self.mistakes.add(place, "`username` and `password` belong together", remedy);
            return None;
        };
        let password = self.password(password, &place.field("password"))?;
        Some(NatsCredentials::User { username: username.clone(), password })
    }

    fn engine_tls(&mut self, raw: &raw::EngineTls, place: &Place) -> Option<EngineTls> {
        let ca = self.optional(raw.ca.as_deref(), |build, path| build.file(path, &place.field("ca")));
        let client_certificate = self.optional(raw.client_certificate.as_ref(), |build, raw| {
            let place = place.field("client_certificate");
            let certificate = build.file(&raw.certificate, &place.field("certificate"));
            let private_key = build.file(&raw.private_key, &place.field("private_key"));
            Some((certificate?, private_key?))
        });
        Some(EngineTls { ca: ca?, client_certificate: client_certificate? })
    }

    fn host_ports(&mut self, texts: &[String], place: &Place, encrypted: bool) -> Option<Vec<HostPort>> {
        self.not_empty(texts, place, "there is nowhere to connect to")?;
        self.no_repeats(texts, place)?;
        super::all(super::each(texts, place, |text, place| self.host_port(text, place, encrypted)))
    }

    fn host_port(&mut self, text: &str, place: &Place, encrypted: bool) -> Option<HostPort> {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let is_host = !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'));
            let port = port.parse().ok().filter(|port| *port != 0)?;
            is_host.then(|| HostPort { host: host.to_owned(), port })
        });
        let Some(address) = parsed else {
            let message = format!("`{text}` is not a host with port");
            self.mistakes.add(place, message, "write it as `valkey.example.com:6379` or `[::1]:6379`");
            return None;
        };
        let is_loopback = address.host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if !encrypted && !is_loopback {
            self.mistakes.add(
                place,
                "without TLS whoever is on the way can lift revocations",
                "add `tls: {}`; plaintext is for loopback addresses (127.0.0.1, [::1]), or, at your risk, with \
                 `insecure_allow_plaintext: true`",
            );
            return None;
        }
        Some(address)
    }

    fn key_prefix(&mut self, prefix: &str, place: &Place) -> Option<String> {
        let fits = (1..=128).contains(&prefix.len())
            && prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}'));
        if !fits {
            let remedy = "1 to 128 visible ASCII characters without braces: `valgate:revocations`";
            self.mistakes.add(place, "the prefix cannot begin the names of keys", remedy);
        }
        fits.then(|| prefix.to_owned())
    }

    fn bucket(&mut self, bucket: &str, place: &Place) -> Option<String> {
        let fits = (1..=128).contains(&bucket.len())
            && bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !fits {
            let remedy = "1 to 128 letters, digits, `-` and `_`: `valgate-revocations`";
            self.mistakes.add(place, "that cannot be the name of a bucket", remedy);
        }
        fits.then(|| bucket.to_owned())
    }

    /// A secret from the file itself or, after `file:`, from another one. Never shown.
    fn password(&mut self, secret: &SecretText, place: &Place) -> Option<Secret> {
        let text = self.secret_text(secret, place)?;
        if text.is_empty() {
            let remedy = "write `${ENV_VAR}`, or `file:` and the path of a file that holds it";
            self.mistakes.add(place, "the secret is empty", remedy);
            return None;
        }
        Some(Secret::new(text))
    }
}
