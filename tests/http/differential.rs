//! No path that the gateway accepts for one route means another to whoever reads it behind: paths made of the parts of
//! bypasses, sent by HTTP/1.1 as they are and as `:path` of HTTP/2, and read by routers and URL parsers that know nothing
//! of ours. `cargo test --test http -- differential --nocapture` prints how many cases there were of each class.
//! `tests/paths/run.py` has more readers, which are not written in Rust.

use std::collections::BTreeMap;

use crate::h2wire::{H2, Outcome, get};
use crate::recorder::Recorder;
use crate::setup::{Gateway, api};

/// What the advisories of this class were made of: see docs/protocols.md.
const PARTS: &[&str] = &[
    "/",
    "//",
    "/.",
    "/..",
    "/./",
    "/../",
    "..",
    ".",
    "...",
    "%2e",
    "%2E%2e",
    ".%2e",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    "/..\\",
    ";",
    ";x=y",
    "..;",
    "/..;/",
    "%3b",
    "%00",
    "%0a",
    "%0d%0a",
    "%09",
    "%20",
    "+",
    "%252e",
    "%252f",
    "%c0%ae",
    "%c0%af",
    "%e0%80%af",
    "%ef%bc%8f",
    "%ff",
    "%",
    "%2",
    "%u002e",
    "?",
    "?/../admin",
    "#",
    "#/../admin",
    "%23",
    "%3f",
    "public",
    "admin",
    "/admin",
    "//admin",
    "/public",
    "Admin",
    "%61dmin",
    "x",
    "x.y",
    "~",
    ":",
    "@",
    "*",
    "%25",
    "index.html",
];

/// How many paths are put together of three to six parts, besides all pairs of parts.
const ROWS: usize = 1_500;

/// The classes that a path belongs to, by what is in it.
const CLASSES: &[(&str, &[&str])] = &[
    ("dot segments", &["/..", "/.", "..;"]),
    ("encoded dots", &["%2e", "%2E"]),
    ("encoded slash", &["%2f", "%2F", "%ef%bc%8f"]),
    ("backslash", &["\\", "%5c"]),
    ("double slash", &["//"]),
    ("parameters", &[";", "%3b"]),
    ("controls", &["%00", "%0a", "%0d", "%09"]),
    ("encoded twice, halves", &["%25", "%u", "%/"]),
    ("overlong and broken UTF-8", &["%c0", "%e0", "%ff"]),
    ("fragment", &["#", "%23"]),
    ("query", &["?", "%3f"]),
];

fn candidates() -> Vec<String> {
    let pairs = PARTS.iter().flat_map(|one| PARTS.iter().map(move |two| format!("/public{one}{two}")));
    let mut state = 20_261_123_u64;
    let mut next = move |most: usize| {
        // xorshift64*: always the same paths, so that a failure can be seen again.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        usize::try_from(state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % most
    };
    let rows: Vec<String> = (0..ROWS)
        .map(|place| {
            let parts: String = (0..3 + next(4)).map(|_| PARTS[next(PARTS.len())]).collect();
            // One in five does not even begin as the public route does.
            if place % 5 == 0 {
                format!("/{}", parts.trim_start_matches('/'))
            } else {
                format!("/public{parts}")
            }
        })
        .collect();
    let mut all: Vec<String> = pairs.chain(rows).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What a reader takes a target for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Public,
    Admin,
    Nowhere,
}

/// Every way in which a target is read by something that routes: the path as it came, decoded, cleaned of dots before
/// and after that, without parameters, with backslashes for slashes, with slashes merged.
fn readings(target: &str) -> Vec<String> {
    let raw = target.split(['?', '#']).next().unwrap_or_default();
    let decoded = decode(raw);
    let without_parameters: String = raw
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("/");
    let late_parameters: String = decoded
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("/");
    let by_http = target.parse::<http::Uri>().map(|uri| uri.path().to_owned()).unwrap_or_default();
    let by_url = url::Url::parse("http://localhost").unwrap().join(target);
    let by_url = by_url.map(|url| {
        assert_eq!(url.host_str(), Some("localhost"), "{target} is another host");
        decode(url.path())
    });
    let mut all = vec![
        raw.to_owned(),
        decoded.clone(),
        clean(&decoded),
        clean(&decode(&clean(raw))),
        clean(&decode(&decoded)),
        clean(&decoded.replace('\\', "/")),
        clean(&decode(&without_parameters)),
        clean(&late_parameters),
        by_http,
    ];
    all.extend(by_url);
    all
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// RFC 3986 section 5.2.4, with empty segments left out.
fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Routers with the same routes.
struct Routers {
    matchit: matchit::Router<Place>,
    path_tree: path_tree::PathTree<Place>,
    recognizer: route_recognizer::Router<Place>,
}

impl Routers {
    fn new() -> Self {
        let (mut matchit, mut path_tree) = (matchit::Router::new(), path_tree::PathTree::new());
        let mut recognizer = route_recognizer::Router::new();
        for (name, place) in [("/public", Place::Public), ("/admin", Place::Admin)] {
            matchit.insert(name, place).unwrap();
            matchit.insert(format!("{name}/"), place).unwrap();
            matchit.insert(format!("{name}/{{*rest}}"), place).unwrap();
            let _ = path_tree.insert(name, place);
            let _ = path_tree.insert(&format!("{name}/:rest*"), place);
            recognizer.add(name, place);
            recognizer.add(&format!("{name}/*rest"), place);
        }
        Self { matchit, path_tree, recognizer }
    }

    /// Where each takes the path to.
    fn places(&self, path: &str) -> [(&'static str, Place); 4] {
        let by_segments = match path.split('/').find(|segment| !segment.is_empty()) {
            Some("public") => Place::Public,
            Some(segment) if segment.eq_ignore_ascii_case("admin") => Place::Admin,
            _ => Place::Nowhere,
        };
        [
            ("matchit", self.matchit.at(path).map_or(Place::Nowhere, |found| *found.value)),
            ("path-tree", self.path_tree.find(path).map_or(Place::Nowhere, |(place, _)| *place)),
            (
                "route-recognizer",
                self.recognizer.recognize(path).map_or(Place::Nowhere, |found| **found.handler()),
            ),
            ("the first segment", by_segments),
        ]
    }
}

#[derive(Default)]
struct Count {
    sent: usize,
    accepted: [usize; 2],
}

#[tokio::test]
async fn what_is_accepted_means_the_same_route_to_all_who_read_it() {
    let recorder = Recorder::start().await;
    // Every opt-in: what is accepted then is what there is to be read wrongly.
    let routes = "routes:
  - { match: { path: '/public/**' }, public: true, upstream: api, allow: [encoded_slash, double_slash, path_parameters] }
";
    let gateway = Gateway::start(&format!("{}{routes}", api(&recorder))).await;
    let routers = Routers::new();
    let mut counts = BTreeMap::<&str, Count>::new();
    let (mut read, mut h2, mut stream) = (0, H2::plain(gateway.plain).await, 1);
    let candidates = candidates();
    for path in &candidates {
        recorder.forget();
        let by_h1 = gateway.get(path, "").await.status == 200;
        let of_h1 = recorder.requests();
        assert_eq!(of_h1.len(), usize::from(by_h1), "{path}: {of_h1:?}");
        let outcome = h2.request(stream, &get(path)).await;
        let by_h2 = matches!(&outcome, Outcome::Answer(answer) if answer.status == 200);
        stream += 2;
        if stream > 400 || matches!(outcome, Outcome::Closed { .. }) {
            (h2, stream) = (H2::plain(gateway.plain).await, 1);
        }
        let received = recorder.requests();
        assert_eq!(received.len() - of_h1.len(), usize::from(by_h2), "{path}: {outcome:?}");
        // A fragment is cut off before anybody sees it by HTTP/2, and refused by HTTP/1.1; all else is one verdict.
        assert!(by_h1 == by_h2 || path.contains('#'), "{path}: {by_h1} by HTTP/1.1, {by_h2} by HTTP/2");
        for request in &received {
            let target = request.target();
            assert!(target == path || path.split('#').next() == Some(target), "{path} arrived as {target}");
            for reading in readings(target) {
                for (router, place) in routers.places(&reading) {
                    read += 1;
                    assert_ne!(place, Place::Admin, "{target}, read as {reading}: {router}");
                }
                let [.., (_, first)] = routers.places(&reading);
                assert_eq!(first, Place::Public, "{target}, read as {reading}, has left the public route");
            }
        }
        let in_class = |parts: &[&str]| parts.iter().any(|part| path.contains(part));
        let mut classes: Vec<&str> =
            CLASSES.iter().filter(|(_, parts)| in_class(parts)).map(|(name, _)| *name).collect();
        if classes.is_empty() {
            classes.push("none of these");
        }
        for class in classes.into_iter().chain(["all"]) {
            let count = counts.entry(class).or_default();
            count.sent += 1;
            count.accepted[0] += usize::from(by_h1);
            count.accepted[1] += usize::from(by_h2);
        }
    }
    for (class, Count { sent, accepted: [h1, h2] }) in &counts {
        println!("{class:>26}: {sent:>5} sent, accepted {h1:>4} by HTTP/1.1, {h2:>4} by HTTP/2");
    }
    println!("{read} readings of what was accepted, none of another route");
    let Count { sent, accepted } = &counts["all"];
    assert!(*sent > 4_000, "{sent}");
    // A gateway that refuses everything would be no proof, and one that takes what no opt-in is for would be none either.
    assert!(accepted.iter().all(|count| *count > 300), "{accepted:?}");
    for class in ["backslash", "controls"] {
        assert_eq!(only_before_the_query(&candidates, class, &gateway).await, 0, "{class}");
    }
}

/// How many paths are accepted that have a part of this class before their query.
async fn only_before_the_query(candidates: &[String], class: &str, gateway: &Gateway) -> usize {
    let parts = CLASSES.iter().find(|(name, _)| *name == class).unwrap().1;
    let mut accepted = 0;
    for path in candidates {
        let before = path.split('?').next().unwrap_or_default();
        if parts.iter().any(|part| before.contains(part)) {
            accepted += usize::from(gateway.get(path, "").await.status == 200);
        }
    }
    accepted
}

/// The readers see what they are there to see: else nothing that they pass would mean anything.
#[test]
fn the_readers_find_the_bypasses_of_the_advisories() {
    let routers = Routers::new();
    let is_found = |target: &str| {
        let places = readings(target).into_iter().flat_map(|reading| routers.places(&reading));
        places.into_iter().any(|(_, place)| place == Place::Admin)
    };
    for target in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/..%2fadmin",
        "/public/%252e%252e/admin",
        "/public/..;/admin",
        "/public/..\\admin",
        "/public/x/../../admin",
        "/public/;x/../admin",
    ] {
        assert!(is_found(target), "{target}");
    }
    for target in ["/public/x", "/public/admin", "/public//admin", "/public/x;admin", "/public?/../admin"] {
        assert!(!is_found(target), "{target}");
    }
    for (path, expected) in
        [("/admin/x", Place::Admin), ("/public/x", Place::Public), ("/public", Place::Public)]
    {
        for (router, place) in routers.places(path) {
            assert_eq!(place, expected, "{path}: {router}");
        }
    }
}
