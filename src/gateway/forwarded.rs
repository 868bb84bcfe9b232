//! Where a request comes from: from the other end of its connection, or from whom the trusted proxies in front of the
//! gateway say they speak for.
//!
//! Such a list is read from its end, where the nearest proxy wrote. Each address that is a trusted proxy's own vouches
//! for the one before it; the first that is not is the client. What stands before that is the client's own word, and
//! goes no further.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::peer::Peer;
use super::sanitize::host_of;
use super::scribe::Scribe;
use crate::catalogue::Reason;
use crate::config::settings::ForwardedHeader;
use crate::rejection::Rejection;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The proxies in front of the gateway.
#[derive(Debug)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    header: ForwardedHeader,
}

/// Where a request comes from.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The client; its port is 0 where a proxy did not tell it.
    pub client_address: SocketAddr,
    /// Whether the client's own connection is secure.
    pub is_https: bool,
    /// The host that the client asked the outermost proxy for, if that told.
    host: Option<HeaderValue>,
    /// From the client to the last proxy before the connection's other end; empty if that is the client.
    hops: Vec<IpAddr>,
}

/// What proxies say, still to be judged.
#[derive(Debug, Default)]
struct Claims<'h> {
    /// From the client's side to ours; `None` for what is no address.
    hops: Vec<Option<IpAddr>>,
    /// Scheme and host at each hop, or for all of them together.
    told: Vec<(Option<&'h str>, Option<&'h str>)>,
}

impl TrustedProxies {
    /// Proxies in these networks, which name the client in this header.
    pub fn new(networks: Vec<IpNet>, header: ForwardedHeader) -> Self {
        Self { networks, header }
    }

    /// Where a request with these headers comes from.
    pub(super) fn provenance(&self, peer: &Peer, headers: &HeaderMap) -> Provenance {
        let connected = Provenance {
            client_address: peer.address,
            is_https: peer.is_tls(),
            host: None,
            hops: Vec::new(),
        };
        if !self.trusts(peer.address.ip().to_canonical()) {
            return connected;
        }
        let claims = match self.header {
            ForwardedHeader::XForwardedFor => x_forwarded(headers),
            ForwardedHeader::Forwarded => forwarded(headers).unwrap_or_default(),
        };
        let mut hops = Vec::new();
        for hop in claims.hops.iter().rev().map_while(|hop| *hop) {
            hops.push(hop);
            if !self.trusts(hop) {
                break;
            }
        }
        let told = match claims.told.as_slice() {
            [for_all] if self.header == ForwardedHeader::XForwardedFor => Some(for_all),
            each => each.len().checked_sub(hops.len()).and_then(|client| each.get(client)),
        };
        let &(scheme, host) = told.unwrap_or(&(None, None));
        hops.reverse();
        let host =
            host.and_then(|host| HeaderValue::from_str(host).ok()).filter(|host| host_of(host).is_ok());
        Provenance {
            client_address: hops.first().map_or(peer.address, |client| SocketAddr::new(*client, 0)),
            is_https: match scheme {
                Some(scheme) if scheme.eq_ignore_ascii_case("https") => true,
                Some(scheme) if scheme.eq_ignore_ascii_case("http") => false,
                _ => connected.is_https,
            },
            host,
            hops,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

impl Provenance {
    /// As a proxy that may be believed tells it.
    pub(super) fn told(client: IpAddr, is_https: bool) -> Self {
        Self { client_address: SocketAddr::new(client, 0), is_https, host: None, hops: Vec::new() }
    }

    /// Tells the API, in headers that nothing of the client's is left in (RFC 7239 section 4 and its older kin).
    pub(super) fn tell(
        &self,
        headers: &mut HeaderMap,
        scribe: &mut Scribe,
        peer: &Peer,
        authority: &HeaderValue,
    ) -> Result<(), Rejection> {
        let host = self.host.as_ref().unwrap_or(authority);
        let scheme = if self.is_https { "https" } else { "http" };
        headers.insert(X_FORWARDED_HOST, host.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
        headers.insert(X_FORWARDED_FOR, self.forwarded_for(peer)?);
        headers.insert(FORWARDED, self.forwarded(scribe, peer, host, scheme)?);
        Ok(())
    }

    fn forwarded_for(&self, peer: &Peer) -> Result<HeaderValue, Rejection> {
        if self.hops.is_empty() {
            return Ok(peer.forwarded_for());
        }
        let hops = self.hops.iter().copied().chain([peer.address.ip().to_canonical()]);
        let list: Vec<String> = hops.map(|hop| hop.to_string()).collect();
        HeaderValue::from_str(&list.join(", ")).map_err(|_| Reason::Internal.into())
    }

    fn forwarded(
        &self,
        scribe: &mut Scribe,
        peer: &Peer,
        host: &HeaderValue,
        scheme: &str,
    ) -> Result<HeaderValue, Rejection> {
        if self.hops.is_empty() {
            // Nearly always, and a third of the cost of formatting.
            let node = peer.forwarded_node();
            let parts =
                [b"for=", node.as_bytes(), b";host=\"", host.as_bytes(), b"\";proto=", scheme.as_bytes()];
            return scribe.write(parts).map_err(|_| Reason::IllegalTarget.into());
        }
        let host = host.to_str().map_err(|_| Rejection::new(Reason::IllegalTarget))?;
        let mut text = String::new();
        for hop in self.hops.iter().copied().chain([peer.address.ip().to_canonical()]) {
            let _ = match (text.is_empty(), hop) {
                (true, IpAddr::V4(hop)) => write!(text, "for={hop};host=\"{host}\";proto={scheme}"),
                (true, IpAddr::V6(hop)) => write!(text, "for=\"[{hop}]\";host=\"{host}\";proto={scheme}"),
                (false, IpAddr::V4(hop)) => write!(text, ", for={hop}"),
                (false, IpAddr::V6(hop)) => write!(text, ", for=\"[{hop}]\""),
            };
        }
        HeaderValue::from_str(&text).map_err(|_| Reason::IllegalTarget.into())
    }
}

/// `X-Forwarded-For` and, of `X-Forwarded-Proto` and `X-Forwarded-Host`, the last words: they are the nearest
/// proxy's.
fn x_forwarded(headers: &HeaderMap) -> Claims<'_> {
    let last = |name: HeaderName| {
        let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
        value.rsplit(',').next().map(str::trim)
    };
    let values = headers.get_all(X_FORWARDED_FOR).iter();
    let hops = values.flat_map(|value| value.to_str().unwrap_or_default().split(',').map(address));
    Claims { hops: hops.collect(), told: vec![(last(X_FORWARDED_PROTO), last(X_FORWARDED_HOST))] }
}

/// `Forwarded` (RFC 7239 section 4); `None` if it is malformed.
fn forwarded(headers: &HeaderMap) -> Option<Claims<'_>> {
    let mut claims = Claims::default();
    for value in headers.get_all(FORWARDED) {
        for element in split_unquoted(value.to_str().ok()?, ',') {
            let (mut hop, mut scheme, mut host) = (None, None, None);
            for pair in split_unquoted(element, ';') {
                let (name, value) = pair.trim().split_once('=')?;
                let value = unquoted(value)?;
                let known = match name.to_ascii_lowercase().as_str() {
                    "for" => hop.replace(value),
                    "proto" => scheme.replace(value),
                    "host" => host.replace(value),
                    _ => None,
                };
                // Section 4: each parameter at most once.
                if known.is_some() {
                    return None;
                }
            }
            claims.hops.push(hop.and_then(address));
            claims.told.push((scheme, host));
        }
    }
    Some(claims)
}

fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    })
}

/// A token, or a quoted string without escapes: no address, scheme or host needs one.
fn unquoted(value: &str) -> Option<&str> {
    let inner = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => value,
    };
    (!inner.contains(['"', '\\'])).then_some(inner)
}

/// An address, with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    bare().or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Provenance, Scribe, TrustedProxies};
    use crate::clock::Monotonic;
    use crate::config::settings::ForwardedHeader;
    use crate::gateway::{Activity, Peer};

    fn peer(address: &str) -> Peer {
        let activity = Activity::new(Monotonic(std::time::Duration::ZERO));
        Peer::new(format!("{address}:5000").parse().unwrap(), Rc::from("l"), None, None, activity)
    }

    fn judge(header: ForwardedHeader, from: &str, lines: &[(&'static str, &str)]) -> (Provenance, HeaderMap) {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let trusted = TrustedProxies::new(networks.to_vec(), header);
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let peer = peer(from);
        let provenance = trusted.provenance(&peer, &headers);
        let mut told = HeaderMap::new();
        provenance.tell(&mut told, &mut Scribe::new(), &peer, &HeaderValue::from_static("api.test")).unwrap();
        (provenance, told)
    }

    #[test]
    fn addresses_are_believed_from_the_right_up_to_the_first_that_is_not_trusted() {
        for (from, list, client, told) in [
            ("9.9.9.9", "1.1.1.1", "9.9.9.9", "9.9.9.9"),
            ("10.0.0.1", "1.1.1.1", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1", "1.1.1.1, 10.0.0.2, 10.0.0.1"),
            ("10.0.0.1", "10.9.9.9, 1.1.1.1", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"),
            ("10.0.0.1", "1.1.1.1:99", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            ("10.0.0.1", "2001:db8::5,[2002::1]:7", "2002::1", "2002::1, 10.0.0.1"),
            ("10.0.0.1", "6.6.6.6, unknown, 10.0.0.2", "10.0.0.2", "10.0.0.2, 10.0.0.1"),
            ("10.0.0.1", "1.1.1.1, ", "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "::ffff:1.1.1.1", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            ("10.0.0.1", "nonsense", "10.0.0.1", "10.0.0.1"),
            ("[::ffff:10.0.0.1]", "1.1.1.1", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
        ] {
            let (provenance, headers) =
                judge(ForwardedHeader::XForwardedFor, from, &[("x-forwarded-for", list)]);
            assert_eq!(provenance.client_address.ip().to_canonical().to_string(), client, "{from}: {list}");
            assert_eq!(headers["x-forwarded-for"], told, "{from}: {list}");
        }
    }

    #[test]
    fn the_standards_header_is_read_alike_and_all_or_nothing() {
        for (value, client, https, host) in [
            ("for=1.1.1.1;proto=https;host=a.test", "1.1.1.1", true, "a.test"),
            (r#"For="[2002::1]:99";Proto=https"#, "2002::1", true, "api.test"),
            (
                "for=6.6.6.6;host=evil.test, for=1.1.1.1;host=a.test;proto=https, for=10.0.0.2;host=in.test",
                "1.1.1.1",
                true,
                "a.test",
            ),
            ("for=_hidden;proto=https;host=a.test", "10.0.0.1", false, "api.test"),
            ("for=6.6.6.6;for=1.1.1.1", "10.0.0.1", false, "api.test"),
            (r#"for="1.1.1.1"#, "10.0.0.1", false, "api.test"),
            (r#"for=1.1.1.1;host="a,b;c""#, "1.1.1.1", false, "api.test"),
            ("for", "10.0.0.1", false, "api.test"),
        ] {
            let (provenance, headers) = judge(
                ForwardedHeader::Forwarded,
                "10.0.0.1",
                &[("forwarded", value), ("x-forwarded-for", "7.7.7.7")],
            );
            assert_eq!(provenance.client_address.ip().to_string(), client, "{value}");
            assert_eq!(
                (provenance.is_https, &headers["x-forwarded-host"]),
                (https, &HeaderValue::from_static(host))
            );
            assert!(!format!("{headers:?}").contains("7.7.7.7") && !format!("{headers:?}").contains("evil"));
        }
    }

    #[test]
    fn scheme_and_host_are_the_nearest_proxys() {
        let lines = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "http, https"),
            ("x-forwarded-host", "evil.test"),
            ("x-forwarded-host", "a.test:8443"),
        ];
        let (_, headers) = judge(ForwardedHeader::XForwardedFor, "10.0.0.1", &lines);
        assert_eq!(headers["forwarded"], "for=1.1.1.1;host=\"a.test:8443\";proto=https, for=10.0.0.1");
        let (_, headers) = judge(ForwardedHeader::XForwardedFor, "9.9.9.9", &lines);
        assert_eq!(headers["forwarded"], "for=9.9.9.9;host=\"api.test\";proto=http");
        let spoilt = [("x-forwarded-proto", "ftp"), ("x-forwarded-host", "a b")];
        let (_, headers) = judge(ForwardedHeader::XForwardedFor, "10.0.0.1", &spoilt);
        assert_eq!(headers["forwarded"], "for=10.0.0.1;host=\"api.test\";proto=http");
    }
}
