//! `forwarded`, and networks of proxies wherever they are named.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Build, all, each};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{Forwarded, ForwardedHeader};

impl Build<'_, '_> {
    pub(super) fn forwarded(&mut self, raw: &raw::Forwarded, place: &Place) -> Option<Forwarded> {
        let trusted_proxies = self.networks(&raw.trusted_proxies, &place.field("trusted_proxies"));
        let header = match raw.header {
            raw::ForwardedHeader::XForwardedFor => ForwardedHeader::XForwardedFor,
            raw::ForwardedHeader::Forwarded => ForwardedHeader::Forwarded,
        };
        Some(Forwarded { trusted_proxies: trusted_proxies?, header })
    }

    /// Networks of proxies whose word is taken.
    pub(super) fn networks(&mut self, raw: &[String], place: &Place) -> Option<Vec<IpNet>> {
        self.no_repeats(raw, place);
        all(each(raw, place, |text, place| self.network(text, place)))
    }

    fn network(&mut self, text: &str, place: &Place) -> Option<IpNet> {
        let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let (message, remedy) = match network {
            None => {
                let remedy = "write it as `10.0.0.0/8` or `2001:db8::/32`, or a single address".to_owned();
                (format!("`{text}` is not a network"), remedy)
            }
            Some(network) if network.prefix_len() == 0 => {
                let remedy =
                    "name the networks of your proxies: anybody could claim to be anybody".to_owned();
                (format!("`{text}` is everybody"), remedy)
            }
            Some(network) if network.trunc() != network => {
                let remedy =
                    format!("write `{}`, or `{}` for this address alone", network.trunc(), network.addr());
                (format!("`{text}` has an address that goes beyond its prefix"), remedy)
            }
            Some(network) => return Some(network),
        };
        self.mistakes.add(place, message, remedy);
        None
    }
}
