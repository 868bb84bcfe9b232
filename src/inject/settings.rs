//! What is injected, and how the application's port is closed: chosen by flags, or by a pod's annotations of the same
//! names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

/// The image of this version.
pub const DEFAULT_IMAGE: &str = concat!("ghcr.io/example/valgate:", env!("CARGO_PKG_VERSION"));

/// What someone chose. Each flag is an annotation too: `--app-port 8080` is `valgate/app-port: "8080"`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// The application's port, which only the gateway may reach; may be repeated
    #[arg(long = "app-port", value_name = "PORT", required = true)]
    pub app_ports: Vec<u16>,
    /// How that port is closed to everyone else
    #[arg(long, value_enum, value_name = "HOW")]
    pub lock: Option<LockKind>,
    /// With --lock loopback: the variable that makes the application listen there, such as HOST=127.0.0.1
    #[arg(long, value_name = "NAME=VALUE")]
    pub bind_env: Option<String>,
    /// With --lock loopback: the argument that does so, such as --host=127.0.0.1
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub bind_arg: Option<String>,
    /// With --lock loopback: the application listens on loopback without being told
    #[arg(long)]
    pub binds_by_itself: bool,
    /// With --lock nftables: an image that has the program nft
    #[arg(long, value_name = "IMAGE")]
    pub nft_image: Option<String>,
    /// Leave the port open: whoever reaches the pod can walk around the gateway
    #[arg(long)]
    pub insecure_leave_open: bool,
    /// The gateway's image
    #[arg(long, value_name = "IMAGE", default_value = DEFAULT_IMAGE)]
    pub image: Option<String>,
    /// The `ConfigMap` with the key valgate.yaml
    #[arg(long, value_name = "NAME", default_value = "valgate")]
    pub config_map: Option<String>,
    /// The Secret with the certificate, found at tls/tls.crt and tls/tls.key beside valgate.yaml
    #[arg(long, value_name = "NAME")]
    pub tls_secret: Option<String>,
    /// Where the gateway listens for clients, by its configuration
    #[arg(long, value_name = "PORT", default_value = "8443")]
    pub port: Option<u16>,
    /// Where the gateway answers probes, by its configuration
    #[arg(long, value_name = "PORT", default_value = "8081")]
    pub health_port: Option<u16>,
}

/// How the application's port is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LockKind {
    /// The application listens on loopback; say how it learns that
    Loopback,
    /// By a `NetworkPolicy`, where the cluster's network enforces them
    NetworkPolicy,
    /// By the pod's packet filter, set by an init container with `NET_ADMIN`
    Nftables,
}

impl Choices {
    /// By a pod's annotations.
    ///
    /// # Errors
    /// An annotation of ours that is unknown or cannot be read.
    pub fn of_annotations(annotations: &Map<String, Value>) -> Result<Self, String> {
        let mut choices = Self::default();
        for (name, value) in annotations {
            let Some(field) = name.strip_prefix(PREFIX) else { continue };
            let text = value.as_str().unwrap_or_default();
            let port =
                || text.trim().parse().map_err(|_| format!("annotation {name}: {text:?} is not a port"));
            let yes =
                || text.parse().map_err(|_| format!("annotation {name}: {text:?} is neither true nor false"));
            match field {
                "inject" => {}
                "app-port" => {
                    let ports = text.split(',').map(|port| port.trim().parse());
                    choices.app_ports = ports
                        .collect::<Result<_, _>>()
                        .map_err(|_| format!("annotation {name}: {text:?} is not a list of ports"))?;
                }
                "lock" => {
                    let kind = LockKind::from_str(text, false);
                    choices.lock = Some(kind.map_err(|_| {
                        format!("annotation {name}: {text:?} is none of loopback, network-policy, nftables")
                    })?);
                }
                "bind-env" => choices.bind_env = Some(text.to_owned()),
                "bind-arg" => choices.bind_arg = Some(text.to_owned()),
                "binds-by-itself" => choices.binds_by_itself = yes()?,
                "nft-image" => choices.nft_image = Some(text.to_owned()),
                "insecure-leave-open" => choices.insecure_leave_open = yes()?,
                "image" => choices.image = Some(text.to_owned()),
                "config-map" => choices.config_map = Some(text.to_owned()),
                "tls-secret" => choices.tls_secret = Some(text.to_owned()),
                "port" => choices.port = Some(port()?),
                "health-port" => choices.health_port = Some(port()?),
                _ => return Err(format!("annotation {name} is not known; see `valgate inject --help`")),
            }
        }
        Ok(choices)
    }
}

/// What our annotations begin with.
pub const PREFIX: &str = "valgate/";

/// What to inject. The ports are those of the configuration in the `ConfigMap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The gateway's image.
    pub image: String,
    /// The `ConfigMap` with the key `valgate.yaml`.
    pub config_map: String,
    /// The Secret of type `kubernetes.io/tls`, found at `tls/tls.crt` and `tls/tls.key`.
    pub tls_secret: Option<String>,
    /// Where the gateway listens for clients.
    pub port: u16,
    /// Where the gateway answers probes.
    pub health_port: u16,
    /// The ports of the application that only the gateway may reach; at least one.
    pub app_ports: Vec<u16>,
    /// How they are closed to everyone else.
    pub lock: Lock,
}

/// How the application's own port is closed to everyone but the gateway in the same pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lock {
    /// The application listens on loopback only.
    Loopback(Bind),
    /// A `NetworkPolicy` admits the gateway's ports alone. Only as good as the cluster's network plug-in: some ignore
    /// policies without a word.
    NetworkPolicy,
    /// A rule of the pod's own packet filter, set by an init container of this image, which must have `nft`. Needs
    /// the capability `NET_ADMIN`, which the restricted pod security standard forbids.
    Nftables {
        /// The image.
        image: String,
    },
    /// Not at all: whoever reaches the pod can walk around the gateway.
    Open,
}

/// How the application learns to listen on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// By an environment variable.
    Environment {
        /// Its name.
        name: String,
        /// Its value, such as `127.0.0.1`.
        value: String,
    },
    /// By an argument, such as `--host=127.0.0.1`.
    Argument(String),
    /// It does so already.
    ByItself,
}

impl TryFrom<Choices> for Settings {
    type Error = String;

    fn try_from(mut choices: Choices) -> Result<Self, String> {
        if choices.app_ports.is_empty() {
            return Err(
                "app-port is missing: the application's port, which only the gateway may reach".to_owned()
            );
        }
        if choices.app_ports.contains(&0) {
            return Err("app-port 0 is no port; say the one that the application listens on".to_owned());
        }
        let mut seen = BTreeSet::new();
        choices.app_ports.retain(|port| seen.insert(*port));
        Ok(Self {
            lock: lock(&choices)?,
            image: choices.image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
            config_map: choices.config_map.unwrap_or_else(|| "valgate".to_owned()),
            tls_secret: choices.tls_secret,
            port: choices.port.unwrap_or(8443),
            health_port: choices.health_port.unwrap_or(8081),
            app_ports: choices.app_ports,
        })
    }
}

fn lock(choices: &Choices) -> Result<Lock, String> {
    let Some(kind) = choices.lock else {
        return if choices.insecure_leave_open { Ok(Lock::Open) } else { Err(NO_LOCK.to_owned()) };
    };
    if choices.insecure_leave_open {
        return Err("lock and insecure-leave-open contradict each other; choose one".to_owned());
    }
    Ok(match kind {
        LockKind::Loopback => Lock::Loopback(bind(choices)?),
        LockKind::NetworkPolicy => Lock::NetworkPolicy,
        LockKind::Nftables => {
            let image = choices.nft_image.clone();
            Lock::Nftables { image: image.ok_or("nft-image is missing: an image that has the program nft")? }
        }
    })
}

fn bind(choices: &Choices) -> Result<Bind, String> {
    match (&choices.bind_env, &choices.bind_arg, choices.binds_by_itself) {
        (Some(variable), None, false) => match variable.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                loopback("bind-env", variable, value)?;
                Ok(Bind::Environment { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("bind-env: {variable:?} is not NAME=VALUE")),
        },
        (None, Some(argument), false) => {
            loopback("bind-arg", argument, argument)?;
            Ok(Bind::Argument(argument.clone()))
        }
        (None, None, true) => Ok(Bind::ByItself),
        _ => Err("lock loopback needs one of bind-env, bind-arg, binds-by-itself: how does the application learn to \
            listen on 127.0.0.1?"
            .to_owned()),
    }
}

/// Refuses what tells an application to listen on every address. What else it means, the application knows alone.
fn loopback(choice: &str, given: &str, text: &str) -> Result<(), String> {
    let mut pieces = text.split(|c: char| c.is_whitespace() || "=,;/@".contains(c));
    if pieces.any(|piece| is_every_address(piece) || after_short_flag(piece).is_some_and(is_every_address)) {
        return Err(format!(
            "{choice}: {given:?} tells the application to listen on every address, where it can be reached without \
             the gateway; say 127.0.0.1"
        ));
    }
    Ok(())
}

/// `0.0.0.0` of `-b0.0.0.0`.
fn after_short_flag(piece: &str) -> Option<&str> {
    let mut rest = piece.strip_prefix('-')?.chars();
    rest.next()?;
    Some(rest.as_str())
}

/// Such as `0.0.0.0`, `[::]:8080`, `*`, `:8080`.
fn is_every_address(piece: &str) -> bool {
    let host = match piece.rsplit_once(':') {
        Some((host, port)) if piece.parse::<IpAddr>().is_err() && port.parse::<u16>().is_ok() => host,
        _ if piece.is_empty() => return false,
        _ => piece,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    matches!(bare, "" | "*" | "+")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_unspecified())
}

const NO_LOCK: &str = "a sidecar that can be walked around protects nothing: say how the application's port is closed \
    to everyone but the gateway, by lock loopback (with bind-env, bind-arg or binds-by-itself), lock network-policy, or \
    lock nftables (with nft-image)";

impl Settings {
    /// For people: `port 8080`, `ports 8080, 8081`.
    pub(super) fn ports_text(&self) -> String {
        ports_text(&self.app_ports)
    }
}

/// For people: `port 8080`, `ports 8080, 8081`.
pub(super) fn ports_text(ports: &[u16]) -> String {
    let list: Vec<_> = ports.iter().map(u16::to_string).collect();
    format!("{} {}", if list.len() == 1 { "port" } else { "ports" }, list.join(", "))
}
