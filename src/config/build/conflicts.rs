//! Routes that match the same requests: which one serves would be a matter of luck.

use super::Build;
use crate::config::place::Place;
use crate::config::settings::{Route, RouteMatch};

impl Build<'_, '_> {
    /// Tells routes that match the same requests, and names that two routes share.
    pub(super) fn distinct_routes(&mut self, routes: &[Option<Route>], place: &Place) {
        for (index, route) in routes.iter().enumerate() {
            let Some(route) = route else { continue };
            let mut earlier = routes
                .iter()
                .enumerate()
                .take(index)
                .filter_map(|(index, other)| Some((index, other.as_ref()?)));
            let clash = earlier.clone().find_map(|(first, other)| {
                overlap(&other.matches, &route.matches).map(|method| (first, other, method.to_owned()))
            });
            if let Some((first, other, method)) = clash {
                let line = self.mistakes.line_of(&place.index(first));
                let what = if method == "*" { "requests".to_owned() } else { format!("{method} requests") };
                self.mistakes.add(
                    &place.index(index).field("match"),
                    format!(
                        "`{}` matches the same {what} as the route `{}`, on line {line}",
                        route.matches, other.name
                    ),
                    "make host, path or methods of one of them differ; a more specific path beside a general one is \
                     fine, and `GET` includes `HEAD`",
                );
            } else if let Some((first, _)) = earlier.find(|(_, other)| other.name == route.name) {
                let line = self.mistakes.line_of(&place.index(first));
                let message = format!("the route `{}` is already there, on line {line}", route.name);
                self.mistakes.add(&place.index(index).field("name"), message, "give each its own name");
            }
        }
    }
}

/// A method whose requests both match with the same precedence; `*` if it is all of them.
///
/// Of different hosts or paths one always takes precedence: exact host before `*.`, literal segment before `*`
/// before `/**`, from left to right. So only equal ones clash.
pub(super) fn overlap<'a>(a: &'a RouteMatch, b: &'a RouteMatch) -> Option<&'a str> {
    if a.host != b.host || a.path != b.path {
        return None;
    }
    a.methods.common(&b.methods)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{RouteMatch, overlap};
    use crate::config::settings::{HostPattern, MethodSet};

    fn matching(host: Option<&str>, path: &str, methods: &[Method]) -> RouteMatch {
        RouteMatch {
            host: host.map_or(HostPattern::Any, |host| HostPattern::Exact(host.to_owned())),
            path: path.parse().unwrap(),
            methods: if methods.is_empty() { MethodSet::Any } else { MethodSet::Only(methods.to_vec()) },
        }
    }

    #[test]
    fn only_equal_hosts_and_paths_with_a_common_method_clash() {
        let a = matching(None, "/a/**", &[Method::GET]);
        for (other, expected) in [
            (matching(None, "/a/**", &[Method::GET]), Some("GET")),
            (matching(None, "/a/**", &[Method::POST, Method::HEAD]), Some("HEAD")),
            (matching(None, "/a/**", &[]), Some("GET")),
            (matching(None, "/a/**", &[Method::POST]), None),
            (matching(None, "/a", &[Method::GET]), None),
            (matching(None, "/a/*", &[Method::GET]), None),
            (matching(Some("x.example"), "/a/**", &[Method::GET]), None),
        ] {
            assert_eq!(overlap(&a, &other), expected, "{other}");
            assert_eq!(overlap(&other, &a), expected, "{other}");
        }
        assert_eq!(overlap(&matching(None, "/", &[]), &matching(None, "/", &[])), Some("*"));
    }
}
