//! Resolving the names of endpoints again and again, on the control runtime: a name's addresses are members of the
//! upstream, each balanced and judged on its own. A resolver that fails takes nothing away.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::member::{Addresses, Member};
use super::service::{Upstream, literal};
use super::settings::Endpoint;

/// The most addresses of one name that are used.
const MOST_ADDRESSES: usize = 64;

/// How soon a failed resolution is tried again, if the interval is not shorter.
const AGAIN: Duration = Duration::from_secs(5);

/// How long one resolution may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps the members of an upstream as the resolver has them. Never ends, unless there is no name to resolve.
pub async fn resolve_names(upstream: Arc<Upstream>) {
    let interval = upstream.settings.resolve_interval;
    let mut was_failing = false;
    while upstream.settings.endpoints.iter().any(|endpoint| has_name(endpoint)) {
        let outcome = resolve_all(&upstream).await;
        let name = &upstream.settings.name;
        match &outcome {
            Err((host, error)) => {
                upstream.stats.failed_resolutions.count();
                if !was_failing {
                    tracing::warn!(upstream = %name, %host, %error, "name cannot be resolved: the addresses known before stay in use");
                }
            }
            Ok(()) if was_failing => tracing::info!(upstream = %name, "names can be resolved again"),
            Ok(()) => {}
        }
        was_failing = outcome.is_err();
        tokio::time::sleep(if was_failing { interval.min(AGAIN) } else { interval }).await;
    }
}

/// Resolves every name; members of names that fail stay. The last failure, if any.
async fn resolve_all(upstream: &Upstream) -> Result<(), (String, io::Error)> {
    let before = upstream.members.all();
    let mut members = Vec::with_capacity(before.len());
    let mut outcome = Ok(());
    for (endpoint, stats) in upstream.endpoints() {
        let known = || before.iter().filter(|member| Arc::ptr_eq(&member.endpoint, endpoint));
        let resolved = match literal(endpoint) {
            Some(address) => Ok(vec![Addresses::One(address)]),
            None if has_name(endpoint) => resolve(endpoint).await,
            None => Ok(vec![Addresses::Unresolved]),
        };
        match resolved {
            Ok(addresses) => members.extend(addresses.into_iter().map(|addresses| {
                let same = known().find(|member| member.addresses == addresses);
                same.cloned().unwrap_or_else(|| {
                    Arc::new(Member::new(Arc::clone(endpoint), Arc::clone(stats), addresses))
                })
            })),
            Err(error) => {
                members.extend(known().cloned());
                outcome = Err((endpoint.host.to_string(), error));
            }
        }
    }
    let is_same =
        members.len() == before.len() && members.iter().zip(&*before).all(|(new, old)| Arc::ptr_eq(new, old));
    if !is_same {
        let addresses = members.iter().map(|member| member.label()).collect::<Vec<_>>().join(", ");
        tracing::info!(upstream = %upstream.settings.name, addresses, "endpoints resolved");
        upstream.members.publish(members);
    }
    outcome
}

/// Neither an address nor a Unix socket needs a resolver.
fn has_name(endpoint: &Endpoint) -> bool {
    endpoint.socket.is_none() && literal(endpoint).is_none()
}

async fn resolve(endpoint: &Endpoint) -> io::Result<Vec<Addresses>> {
    let lookup = tokio::net::lookup_host((&*endpoint.host, endpoint.port));
    let found = tokio::time::timeout(PATIENCE, lookup).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let members = members_of(found.collect());
    if members.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(members) }
}

/// One member for each server. A name with addresses of both families stands for servers that are reached by either,
/// and nobody says which belong together: so each address of one is tried with one of the other.
fn members_of(mut found: Vec<SocketAddr>) -> Vec<Addresses> {
    found.sort_unstable();
    found.dedup();
    found.truncate(MOST_ADDRESSES);
    let (v4, v6): (Vec<_>, Vec<_>) = found.into_iter().partition(SocketAddr::is_ipv4);
    let most = v4.len().max(v6.len());
    let pairs = (0..most).filter_map(|place| match (v6.get(place), v4.get(place)) {
        (Some(six), Some(four)) => Some(Addresses::Either(*six, *four)),
        (Some(only), None) | (None, Some(only)) => Some(Addresses::One(*only)),
        (None, None) => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::{Addresses, members_of};

    #[test]
    fn addresses_of_one_family_are_members_and_those_of_the_other_their_second_way() {
        let at = |text: &str| text.parse().unwrap();
        assert_eq!(
            members_of(vec![at("10.0.0.2:80"), at("10.0.0.1:80"), at("10.0.0.2:80")]),
            [Addresses::One(at("10.0.0.1:80")), Addresses::One(at("10.0.0.2:80"))],
        );
        assert_eq!(
            members_of(vec![at("127.0.0.1:80"), at("[::1]:80")]),
            [Addresses::Either(at("[::1]:80"), at("127.0.0.1:80"))],
        );
        assert_eq!(
            members_of(vec![at("10.0.0.1:80"), at("[fd00::1]:80"), at("[fd00::2]:80")]),
            [Addresses::Either(at("[fd00::1]:80"), at("10.0.0.1:80")), Addresses::One(at("[fd00::2]:80"))],
        );
        assert_eq!(members_of(Vec::new()), []);
        let many = (0..1000).map(|port| std::net::SocketAddr::from(([10, 0, 0, 1], port))).collect();
        assert_eq!(members_of(many).len(), 64);
    }
}
