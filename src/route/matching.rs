//! Which requests a route is for: host, path, methods.

use std::cmp::Reverse;
use std::fmt;

use http::Method;

use super::PathPattern;

/// Which requests a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// The host.
    pub host: HostPattern,
    /// The path.
    pub path: PathPattern,
    /// The methods.
    pub methods: MethodSet,
}

/// Hosts, in lower case and without port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// This one.
    Exact(String),
    /// All names below this one, at any depth: `*.example.com` is `Below("example.com")`.
    Below(String),
}

/// Methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MethodSet {
    /// Every method.
    Any,
    /// These; at least one, none twice. `HEAD` follows `GET` and stands here only if it was written.
    Only(Vec<Method>),
}

impl RouteMatch {
    /// A method whose requests both match with the same precedence; `*` if it is all of them.
    ///
    /// Of different hosts or paths one always takes precedence: exact host before `*.`, literal segment before `*`
    /// before `/**`, from left to right. So only equal ones clash.
    pub fn overlap<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        if self.host != other.host || self.path != other.path {
            return None;
        }
        self.methods.common(&other.methods)
    }
}

impl HostPattern {
    /// Whether this host (in lower case, without port) is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Below(parent) => {
                host.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }

    /// Orders the more specific first: exact names, then longer parents, then any.
    pub(super) fn rank(&self) -> (u8, Reverse<usize>) {
        match self {
            Self::Exact(name) => (0, Reverse(name.len())),
            Self::Below(parent) => (1, Reverse(parent.len())),
            Self::Any => (2, Reverse(0)),
        }
    }
}

impl MethodSet {
    /// Whether a request with `method` is in the set; `HEAD` follows `GET` (RFC 9110 section 9.3.2).
    pub fn contains(&self, method: &Method) -> bool {
        match self {
            Self::Any => true,
            Self::Only(methods) => {
                methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET))
            }
        }
    }

    /// A method that is in both, if there is one; `*` stands for every method.
    pub fn common<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        match (self, other) {
            (Self::Any, Self::Any) => Some("*"),
            (Self::Any, Self::Only(methods)) | (Self::Only(methods), Self::Any) => {
                methods.first().map(Method::as_str)
            }
            (Self::Only(methods), Self::Only(others)) => {
                let in_other = methods.iter().find(|method| other.contains(method));
                in_other.or_else(|| others.iter().find(|method| self.contains(method))).map(Method::as_str)
            }
        }
    }
}

impl fmt::Display for MethodSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Only(methods) => {
                f.write_str(&methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// `GET api.example.com/orders/**`, as routes without a name are called.
impl fmt::Display for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.methods, self.host, self.path)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Exact(host) => f.write_str(host),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{HostPattern, MethodSet, RouteMatch};

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
            assert_eq!(a.overlap(&other), expected, "{other}");
            assert_eq!(other.overlap(&a), expected, "{other}");
        }
        assert_eq!(matching(None, "/", &[]).overlap(&matching(None, "/", &[])), Some("*"));
    }
}
