//! The routing step: exactly one route for a request, or VAL-040, VAL-041, VAL-042.

use std::sync::Arc;

use http::{HeaderName, Method};

use super::credential::TokenSource;
use super::expiry_hint::ExpiryHints;
use super::identity::IdentityHeader;
use super::own_revocation::OwnRevocation;
use super::receive::Receiver;
use super::sanitize::CleanRequest;
use crate::catalogue::Reason;
use crate::config::settings::ErrorDetail;
use crate::cors::Cors;
use crate::policy::{Access, Enforcement};
use crate::rejection::Rejection;
use crate::route::{Ambiguity, Found, RequestPath, RouteId, RouteTable};
use crate::upstream::AnswerTimeouts;

/// Everything that the configuration says of one route.
#[derive(Debug)]
pub struct Route {
    /// Its place in the configuration.
    pub id: RouteId,
    /// What logs and metrics call it.
    pub name: Box<str>,
    /// The path that it matches, as configured.
    pub template: Box<str>,
    /// Who may use it.
    pub access: Access,
    /// Where the token is.
    pub token_from: TokenSource,
    /// Who serves it.
    pub service: Service,
    /// Claims that the API is told.
    pub identity_headers: Vec<IdentityHeader>,
    /// Whether the API gets the token too.
    pub forward_token: bool,
    /// The `Host` that the API sees.
    pub host: HostHeader,
    /// Ways of writing a path that this route accepts although servers differ on them.
    pub allow: Vec<Ambiguity>,
    /// Override headers that this route lets pass.
    pub allow_override_headers: Vec<HeaderName>,
    /// The largest request body in bytes; `None` for no bound.
    pub max_body: Option<u64>,
    /// How many bytes of a request's body have to come in a second; zero: as few as may be.
    pub body_rate: u64,
    /// How long the API may take.
    pub timeouts: AnswerTimeouts,
    /// Who is told that a token ends soon.
    pub expiry_hints: ExpiryHints,
    /// How much a refused client is told.
    pub error_detail: ErrorDetail,
    /// Which pages of other origins may call.
    pub cors: Option<Arc<Cors>>,
    /// Whether who may not use it is refused.
    pub enforcement: Enforcement,
}

/// Who serves the requests of a route.
#[derive(Debug)]
pub enum Service {
    /// The upstream at this place among the upstreams.
    Upstream(usize),
    /// The gateway: it takes what a provider sends.
    Receive(Receiver),
    /// The gateway: it revokes what the bearer sends.
    Revoke(OwnRevocation),
    /// Another proxy, which asks about each request.
    Decision,
}

/// The `Host` that an upstream sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The one that the client sent.
    Preserve,
    /// The endpoint's own.
    Upstream,
}

impl Route {
    /// The place of its upstream, if it is not the gateway itself that serves it.
    pub fn upstream(&self) -> Option<usize> {
        match self.service {
            Service::Upstream(place) => Some(place),
            Service::Receive(_) | Service::Revoke(_) | Service::Decision => None,
        }
    }
}

/// The routes of one configuration, by id, and the table that finds them.
#[derive(Debug)]
pub struct Routes {
    table: RouteTable,
    all: Vec<Arc<Route>>,
}

impl Routes {
    /// The routes' ids must be their places in both.
    pub fn new(table: RouteTable, all: Vec<Arc<Route>>) -> Self {
        Self { table, all }
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> &[Arc<Route>] {
        &self.all
    }

    /// The route of a request.
    pub(super) fn find<B>(&self, request: &CleanRequest<B>) -> Result<&Arc<Route>, Rejection> {
        self.find_for(request, request.method())
    }

    /// The route that the request would have with this method.
    pub(super) fn find_for<B>(
        &self,
        request: &CleanRequest<B>,
        method: &Method,
    ) -> Result<&Arc<Route>, Rejection> {
        let path = RequestPath::check(request.path())
            .map_err(|refused| Rejection::new(Reason::AmbiguousPath).hint(refused.0))?;
        let found = self.table.find(request.host(), &path, method);
        let route = match &found {
            Found::Route(id) => self.all.get(usize::from(id.0)),
            _ => None,
        };
        if path.is_ambiguous() && !route.is_some_and(|route| path.is_covered_by(&route.allow)) {
            return Err(Rejection::new(Reason::AmbiguousPath).hint(
                "The path contains an encoded slash, a double slash or a ';' parameter, which this route does not allow.",
            ));
        }
        match (found, route) {
            (_, Some(route)) => Ok(route),
            (Found::OtherMethods(allowed), None) => {
                Err(Rejection::new(Reason::MethodNotAllowed).allow(list(&allowed)))
            }
            (_, None) => Err(Reason::NoRoute.into()),
        }
    }

    /// The route that host and path lead to, though it may refuse the method or the spelling.
    pub(super) fn nearest(&self, host: &str, path: &str, method: &Method) -> Option<&Arc<Route>> {
        let path = RequestPath::check(path).ok()?;
        let found = match self.table.find(host, &path, method) {
            Found::OtherMethods(allowed) => self.table.find(host, &path, allowed.first()?),
            found => found,
        };
        let Found::Route(id) = found else { return None };
        self.all.get(usize::from(id.0))
    }

    /// Whether the name that a TLS connection was made for and the host of a request on it are two different hosts
    /// of this configuration: then rules made for the one could be walked around by way of the other (RFC 9110
    /// section 15.5.20). A name that no route knows decides nothing.
    pub(super) fn is_misdirected(&self, server_name: &str, host: &str) -> bool {
        server_name != host
            && match (self.table.host_of(server_name), self.table.host_of(host)) {
                (Some(connected), Some(requested)) => connected != requested,
                _ => false,
            }
    }
}

fn list(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}
