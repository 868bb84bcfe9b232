//! The route table: host first, then the most specific path, then method.
//!
//! A tree of segments for each host pattern. Literal segments win over `*`, and `*` over `/**`; the method decides
//! last and never sends a request on to a wider route (VAL-041 instead).

use std::borrow::Cow;
use std::collections::HashMap;

use http::Method;

use super::matching::{HostPattern, MethodSet, RouteMatch};
use super::path::RequestPath;
use super::pattern::PathSegment;

/// The place of a route in the configuration, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u16);

/// Two routes that match the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The route that came first.
    pub first: RouteId,
    /// The one that says the same again.
    pub second: RouteId,
}

/// What the table says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This route and no other.
    Route(RouteId),
    /// The path is served with these methods only (for `Allow`).
    OtherMethods(Vec<Method>),
    /// Nothing matches.
    Nothing,
}

/// All routes of one configuration.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: Vec<(HostPattern, Node)>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    here: Leaf,
    subtree: Leaf,
}

/// The routes with one and the same pattern: they differ in methods.
#[derive(Debug, Default)]
struct Leaf(Vec<(MethodSet, RouteId)>);

impl RouteTable {
    /// Builds the table; the routes' ids are their places in `routes`. All conflicts are told at once.
    pub fn build<'m>(routes: impl IntoIterator<Item = &'m RouteMatch>) -> Result<Self, Vec<Conflict>> {
        let mut table = Self::default();
        let mut conflicts = Vec::new();
        for (place, route) in routes.into_iter().enumerate() {
            let id = RouteId(u16::try_from(place).unwrap_or(u16::MAX));
            if let Err(first) = table.leaf(route).add(&route.methods, id) {
                conflicts.push(Conflict { first, second: id });
            }
        }
        table.hosts.sort_by_key(|(host, _)| host.rank());
        if conflicts.is_empty() { Ok(table) } else { Err(conflicts) }
    }

    fn leaf(&mut self, route: &RouteMatch) -> &mut Leaf {
        let place = self.hosts.iter().position(|(host, _)| *host == route.host).unwrap_or_else(|| {
            self.hosts.push((route.host.clone(), Node::default()));
            self.hosts.len() - 1
        });
        // `place` was found or made right above.
        #[allow(clippy::indexing_slicing, reason = "the index was just found or pushed")]
        let mut node = &mut self.hosts[place].1;
        for segment in route.path.segments() {
            node = match segment {
                PathSegment::Literal(name) => node.literals.entry(name.as_str().into()).or_default(),
                PathSegment::Any => node.one.get_or_insert_default(),
            };
        }
        if route.path.is_open() { &mut node.subtree } else { &mut node.here }
    }

    /// The route for this host (lower case, without port), path and method. A path with several readings finds a
    /// route only if all of them lead to it.
    pub fn find(&self, host: &str, path: &RequestPath<'_>, method: &Method) -> Found {
        let found = self.find_reading(host, &path.segments(), method);
        if path.is_ambiguous()
            && path.other_readings().any(|reading| self.find_reading(host, &reading, method) != found)
        {
            return Found::Nothing;
        }
        found
    }

    /// The most specific host pattern that names this host, unless it is the one for any host.
    pub fn host_of(&self, host: &str) -> Option<&HostPattern> {
        let (pattern, _) = self.hosts.iter().find(|(pattern, _)| pattern.matches(host))?;
        (*pattern != HostPattern::Any).then_some(pattern)
    }

    fn find_reading(&self, host: &str, segments: &[Cow<'_, str>], method: &Method) -> Found {
        self.hosts
            .iter()
            .filter(|(pattern, _)| pattern.matches(host))
            .find_map(|(_, root)| root.best(segments))
            .map_or(Found::Nothing, |leaf| leaf.choose(method))
    }
}

impl Node {
    /// The most specific pattern that matches, compared segment by segment from the left.
    fn best(&self, segments: &[Cow<'_, str>]) -> Option<&Leaf> {
        let Some((first, rest)) = segments.split_first() else {
            return self.here.if_any().or_else(|| self.subtree.if_any());
        };
        self.literals
            .get(&**first)
            .and_then(|node| node.best(rest))
            .or_else(|| self.one.as_ref().filter(|_| !first.is_empty()).and_then(|node| node.best(rest)))
            .or_else(|| self.subtree.if_any())
    }
}

impl Leaf {
    fn if_any(&self) -> Option<&Self> {
        (!self.0.is_empty()).then_some(self)
    }

    /// Adds a route; the error is the route that already has one of its methods.
    fn add(&mut self, methods: &MethodSet, id: RouteId) -> Result<(), RouteId> {
        if let Some((_, first)) = self.0.iter().find(|(others, _)| others.common(methods).is_some()) {
            return Err(*first);
        }
        self.0.push((methods.clone(), id));
        Ok(())
    }

    fn choose(&self, method: &Method) -> Found {
        match self.0.iter().find(|(methods, _)| methods.contains(method)) {
            Some((_, id)) => Found::Route(*id),
            None => Found::OtherMethods(self.methods()),
        }
    }

    fn methods(&self) -> Vec<Method> {
        let only = |(methods, _): &(MethodSet, RouteId)| match methods {
            MethodSet::Any => Vec::new(),
            MethodSet::Only(methods) => methods.clone(),
        };
        let mut methods: Vec<Method> = self.0.iter().flat_map(only).collect();
        if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
            methods.push(Method::HEAD);
        }
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        methods
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Conflict, Found, RouteId, RouteMatch, RouteTable};
    use crate::route::{HostPattern, MethodSet, RequestPath};

    fn route(host: &str, path: &str, methods: &str) -> RouteMatch {
        let methods: Vec<Method> = methods.split_whitespace().map(|name| name.parse().unwrap()).collect();
        RouteMatch {
            host: match host.strip_prefix("*.") {
                Some(parent) => HostPattern::Below(parent.to_owned()),
                None if host.is_empty() => HostPattern::Any,
                None => HostPattern::Exact(host.to_owned()),
            },
            path: path.parse().unwrap(),
            methods: if methods.is_empty() { MethodSet::Any } else { MethodSet::Only(methods) },
        }
    }

    fn find(table: &RouteTable, host: &str, path: &str, method: &str) -> Found {
        table.find(host, &RequestPath::check(path).unwrap(), &method.parse().unwrap())
    }

    #[test]
    fn the_most_specific_path_wins_whatever_the_order() {
        let routes = [
            route("", "/**", ""),
            route("", "/orders/**", ""),
            route("", "/orders/*/items", ""),
            route("", "/orders/special/**", ""),
            route("", "/orders/", ""),
            route("", "/orders/*", ""),
        ];
        let table = RouteTable::build(&routes).unwrap();
        for (path, expected) in [
            ("/", 0),
            ("/order", 0),
            ("/ordersx", 0),
            ("/Orders/7", 0),
            ("/orders", 1),
            ("/orders/", 4),
            ("/orders/7", 5),
            ("/orders/7/", 1),
            ("/orders/7/items", 2),
            ("/orders/7/items/1", 1),
            ("/orders/special", 3),
            ("/orders/special/items", 3),
            ("/%6frders/7", 5),
        ] {
            assert_eq!(find(&table, "h", path, "GET"), Found::Route(RouteId(expected)), "{path}");
        }
    }

    #[test]
    fn a_method_that_the_best_path_does_not_list_never_falls_through() {
        let routes =
            [route("", "/**", ""), route("", "/orders/**", "GET POST"), route("", "/orders/**", "DELETE")];
        let table = RouteTable::build(&routes).unwrap();
        assert_eq!(find(&table, "h", "/orders/7", "HEAD"), Found::Route(RouteId(1)));
        assert_eq!(find(&table, "h", "/orders/7", "DELETE"), Found::Route(RouteId(2)));
        let allowed = vec![Method::DELETE, Method::GET, Method::HEAD, Method::POST];
        assert_eq!(find(&table, "h", "/orders/7", "PUT"), Found::OtherMethods(allowed));
        assert_eq!(find(&table, "h", "/orders/7", "get"), find(&table, "h", "/orders/7", "PUT"));
    }

    #[test]
    fn hosts_go_from_exact_to_any_and_a_path_may_be_found_under_a_wider_host() {
        let routes = [
            route("", "/status", ""),
            route("*.example.com", "/**", ""),
            route("api.example.com", "/orders/**", ""),
            route("*.api.example.com", "/**", ""),
        ];
        let table = RouteTable::build(&routes).unwrap();
        for (host, path, expected) in [
            ("api.example.com", "/orders/1", Found::Route(RouteId(2))),
            ("api.example.com", "/x", Found::Route(RouteId(1))),
            ("a.api.example.com", "/x", Found::Route(RouteId(3))),
            ("example.com", "/x", Found::Nothing),
            ("example.com", "/status", Found::Route(RouteId(0))),
            ("evilexample.com", "/x", Found::Nothing),
        ] {
            assert_eq!(find(&table, host, path, "GET"), expected, "{host}{path}");
        }
    }

    #[test]
    fn routes_that_match_the_same_requests_conflict() {
        let routes = [
            route("", "/a/**", "GET"),
            route("", "/a/**", "POST"),
            route("", "/a/**", ""),
            route("", "/a/**", "PUT GET"),
            route("", "/a/*", ""),
            route("a.b", "/a/**", "GET"),
            route("a.b", "/a/**", "HEAD"),
        ];
        let conflicts = RouteTable::build(&routes).unwrap_err();
        assert_eq!(
            conflicts,
            [
                Conflict { first: RouteId(0), second: RouteId(2) },
                Conflict { first: RouteId(0), second: RouteId(3) },
                Conflict { first: RouteId(5), second: RouteId(6) }
            ]
        );
    }

    #[test]
    fn every_reading_must_lead_to_the_same_route() {
        let routes = [route("", "/public/**", ""), route("", "/public/admin/**", ""), route("", "/x/**", "")];
        let table = RouteTable::build(&routes).unwrap();
        for path in ["/public/%2fadmin", "/public//admin", "/public/admin;x", "/public;x/admin", "/x;/..a%2f"]
        {
            if let Ok(checked) = RequestPath::check(path) {
                let found = table.find("h", &checked, &Method::GET);
                assert!(matches!(found, Found::Nothing | Found::Route(RouteId(2))), "{path}: {found:?}");
            }
        }
        for path in ["/public/a%2fb", "/public/a//b", "/public/a;v=1"] {
            assert_eq!(find(&table, "h", path, "GET"), Found::Route(RouteId(0)), "{path}");
        }
    }
}
