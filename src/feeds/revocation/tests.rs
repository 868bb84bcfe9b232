use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::clock::{ClockHand, UnixSeconds};
use crate::feeds::testing::{Reply, TestServer, eventually};
use crate::revocation::{Freshness, TokenFacts};

use super::*;

mod local;

const ISSUER: &str = "https://id.example.com/";
const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

/// A server that plays its script and writes down what it was asked: query, then If-None-Match.
struct Source {
    server: TestServer,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Source {
    /// After the last reply it answers 503.
    async fn playing(script: impl IntoIterator<Item = Reply>) -> Self {
        let script = Mutex::new(script.into_iter().collect::<VecDeque<_>>());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = Arc::clone(&asked);
        let server = TestServer::start(move |request| {
            let tag = request.headers().get("if-none-match").map_or("", |tag| tag.to_str().unwrap());
            notes
                .lock()
                .unwrap()
                .push(format!("{} {tag}", request.uri().query().unwrap_or("")).trim().to_owned());
            script.lock().unwrap().pop_front().unwrap_or_else(|| Reply::status(503))
        });
        Self { server: server.await, asked }
    }

    fn settings(&self) -> RevocationFeedSettings {
        settings(self.server.url("/revocations"))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn settings(url: Url) -> RevocationFeedSettings {
    let source = RevocationSource::Http {
        url,
        long_poll: None,
        authorization: None,
        signed: None,
        fetch: Box::new(FetchSettings { timeout: Duration::from_secs(20), ..FetchSettings::default() }),
    };
    RevocationFeedSettings {
        name: "logout".to_owned(),
        source,
        interval: Duration::from_secs(1),
        issuers: vec![ISSUER.to_owned()],
        leeway: Duration::ZERO,
        max_entries: 100,
        state_dir: None,
    }
}

struct Case {
    feed: RevocationFeed,
    hand: ClockHand,
}

impl Case {
    fn new(settings: RevocationFeedSettings) -> Self {
        Self::with(settings, FactHasher::random(), NOW)
    }

    fn with(settings: RevocationFeedSettings, hasher: FactHasher, at: UnixSeconds) -> Self {
        let (clock, hand) = Clock::manual(at);
        Self { feed: RevocationFeed::new(settings, hasher, clock).unwrap(), hand }
    }

    async fn syncs(&mut self) -> bool {
        self.feed.sync().await.unwrap() == Next::Soon
    }

    async fn fails(&mut self) -> String {
        self.feed.sync().await.unwrap_err().to_string()
    }

    /// Which of these token ids are revoked.
    fn revoked(&self) -> String {
        revoked(&self.feed.state())
    }

    fn generation(&self) -> u64 {
        self.feed.state().index().generation()
    }

    fn age(&self) -> Option<Duration> {
        match self.feed.state().freshness(self.feed.replica.clock.monotonic(), Duration::from_secs(1_000_000))
        {
            Freshness::NotLoaded => None,
            Freshness::Fresh { age } | Freshness::Stale { age } => Some(age),
        }
    }
}

fn revoked(state: &FeedState) -> String {
    let hasher = state.index().hasher();
    ["a", "b", "c", "d"]
        .into_iter()
        .filter(|jti| {
            let facts = TokenFacts { issuer: ISSUER, jti: Some(jti), ..TokenFacts::default() };
            state.index().check(&hasher.keys(&facts), None, NOW).is_some()
        })
        .collect()
}

fn ids(ids: &str) -> String {
    let entries: Vec<String> =
        ids.chars().map(|id| format!(r#"{{"jti": "{id}", "exp": {}}}"#, NOW.0 + 3600)).collect();
    entries.join(",")
}

fn snapshot(epoch: &str, cursor: &str, entries: &str) -> Reply {
    Reply::ok(format!(
        r#"{{"version": 1, "epoch": "{epoch}", "cursor": "{cursor}", "kind": "snapshot", "entries": [{entries}]}}"#
    ))
}

fn delta(epoch: &str, since: &str, cursor: &str, entries: &str) -> Reply {
    Reply::ok(format!(
        r#"{{"version": 1, "epoch": "{epoch}", "cursor": "{cursor}", "since": "{since}", "kind": "delta",
             "entries": [{entries}]}}"#
    ))
}

fn plain(epoch: &str, entries: &str) -> Reply {
    Reply::ok(format!(r#"{{"version": 1, "epoch": "{epoch}", "kind": "snapshot", "entries": [{entries}]}}"#))
}

#[tokio::test]
async fn a_snapshot_then_deltas_by_cursor() {
    let source = Source::playing([
        snapshot("e", "1", &ids("ab")),
        delta("e", "1", "a/2&", &ids("c")),
        delta("e", "a/2&", "3", r#"{"jti": "a", "lift": true}"#),
        delta("e", "3", "3", ""),
    ])
    .await;
    let mut case = Case::new(source.settings());
    let expected = ["ab", "abc", "bc", "bc"];
    for expected in expected {
        case.syncs().await;
        assert_eq!(case.revoked(), expected);
    }
    assert_eq!(source.asked(), ["", "cursor=1", "cursor=a%2F2%26", "cursor=3"]);
    assert_eq!(case.generation(), 3);
    let stats = case.feed.stats();
    let counts = [&stats.snapshots, &stats.deltas, &stats.unchanged, &stats.applied, &stats.broken];
    assert_eq!(counts.map(|count| count.load(std::sync::atomic::Ordering::Relaxed)), [1, 2, 1, 4, 0]);
    assert_eq!(stats.last_success(), Some(NOW));
}

#[tokio::test]
async fn a_server_with_only_a_static_file_is_asked_by_tag() {
    let tagged = |tag| plain("e", &ids("a")).with("etag", tag);
    let source = Source::playing([
        tagged("\"1\""),
        Reply::Say(304, vec![], "".into()),
        tagged("\"2\""),
        plain("e", &ids("b")),
    ])
    .await;
    let mut case = Case::new(source.settings());
    for expected in ["a", "a", "a"] {
        case.hand.advance(Duration::from_secs(5));
        case.syncs().await;
        assert_eq!((case.revoked().as_str(), case.age()), (expected, Some(Duration::ZERO)));
    }
    assert_eq!(case.generation(), 1, "the same bytes again change nothing");
    case.syncs().await;
    assert_eq!(
        (case.revoked().as_str(), case.generation()),
        ("b", 2),
        "what a snapshot leaves out is lifted"
    );
    assert_eq!(source.asked(), ["", "\"1\"", "\"1\"", "\"2\""]);
}

#[tokio::test]
async fn a_tag_is_sent_only_with_the_cursor_that_it_answered() {
    let source = Source::playing([
        snapshot("e", "1", &ids("a")).with("etag", "\"x\""),
        delta("e", "1", "1", "").with("etag", "\"y\""),
        Reply::Say(304, vec![], "".into()),
    ])
    .await;
    let mut case = Case::new(source.settings());
    for _ in 0..3 {
        case.syncs().await;
    }
    assert_eq!(source.asked(), ["", "cursor=1", "cursor=1 \"y\""]);
}

#[tokio::test]
async fn a_long_poll_is_asked_for_and_news_are_followed_at_once() {
    let source = Source::playing([
        snapshot("e", "1", &ids("a")),
        delta("e", "1", "2", &ids("b")),
        delta("e", "2", "2", ""),
    ])
    .await;
    let mut settings = source.settings();
    if let RevocationSource::Http { long_poll, .. } = &mut settings.source {
        *long_poll = Some(Duration::from_secs(30));
    }
    let mut case = Case::new(settings);
    assert!(case.syncs().await, "from the snapshot on to the first long poll");
    assert!(case.syncs().await, "news");
    assert!(!case.syncs().await, "an empty answer at once: the server does not hold back");
    assert_eq!(source.asked(), ["", "cursor=1&wait=30", "cursor=2&wait=30"]);
}

#[tokio::test]
async fn gone_leads_to_a_snapshot_and_what_is_known_stays_until_then() {
    let source = Source::playing([
        snapshot("e", "1", &ids("a")),
        Reply::status(410),
        Reply::status(410),
        snapshot("f", "7", &ids("b")),
        delta("f", "7", "8", &ids("c")),
    ])
    .await;
    let mut case = Case::new(source.settings());
    case.feed.step().await;
    assert_eq!(case.feed.step().await, pace::LEAST_PAUSE);
    assert!(
        case.feed.step().await > pace::LEAST_PAUSE,
        "a server that is always gone is not asked in a loop"
    );
    assert_eq!(case.revoked(), "a");
    case.feed.step().await;
    assert_eq!(case.revoked(), "b");
    case.feed.step().await;
    assert_eq!(case.revoked(), "bc");
    assert_eq!(source.asked(), ["", "cursor=1", "", "", "cursor=7"]);
}

#[tokio::test]
async fn a_snapshot_of_a_new_epoch_in_answer_to_a_cursor_is_taken() {
    let source = Source::playing([
        snapshot("e", "9", &ids("ab")),
        snapshot("f", "1", ""),
        delta("f", "1", "2", &ids("c")),
    ])
    .await;
    let mut case = Case::new(source.settings());
    for expected in ["ab", "", "c"] {
        case.syncs().await;
        assert_eq!(case.revoked(), expected);
    }
}

#[tokio::test]
async fn what_is_no_good_answer_keeps_the_last_good_and_is_not_counted_as_heard() {
    let json = |body: &'static str| Reply::ok(body);
    let html = Reply::Say(200, vec![("content-type", "text/html".to_owned())], plain_body().into());
    let untyped = Reply::Say(200, vec![], plain_body().into());
    let cases: Vec<(&str, Reply, &str)> = vec![
        ("page", html, "is text/html, not JSON"),
        ("no type", untyped, "of no stated type"),
        ("empty", json(""), "the document is empty"),
        ("garbage", json("}{"), "not well formed"),
        (
            "cut short",
            json(r#"{"version": 1, "kind": "snapshot", "epoch": "e", "entries": [{"jti": "d"}"#),
            "EOF",
        ),
        ("error", Reply::status(500), "status 500"),
        ("unauthorized", Reply::status(401), "status 401"),
        ("all broken", plain("e", r#"{"token": "d"}"#), "all 1 entries are broken"),
        ("suddenly empty", plain("e", ""), "suddenly empty"),
        ("unasked delta", delta("e", "1", "2", &ids("d")), "a snapshot was asked for"),
        ("too large", Reply::ok(" ".repeat((1 << 20) + 1)), "more than 1048576 bytes"),
        ("too many", plain("e", &vec![r#"{"jti": "d"}"#; 101].join(",")), "more than 100 revocations"),
    ];
    for (name, reply, expected) in cases {
        let source = Source::playing([plain("e", &ids("ab")), reply, plain("e", &ids("c"))]).await;
        let mut case = Case::new(source.settings());
        case.syncs().await;
        case.hand.advance(Duration::from_secs(7));
        let error = case.fails().await;
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!((case.revoked().as_str(), case.generation()), ("ab", 1), "{name}");
        assert_eq!(case.age(), Some(Duration::from_secs(7)), "{name}");
        case.syncs().await;
        assert_eq!((case.revoked().as_str(), case.age()), ("c", Some(Duration::ZERO)), "{name}");
    }
}

fn plain_body() -> &'static str {
    r#"{"version": 1, "epoch": "e", "kind": "snapshot", "entries": [{"jti": "d"}]}"#
}

#[tokio::test]
async fn a_snapshot_may_become_empty_when_nothing_is_in_force_any_more() {
    let source = Source::playing([plain("e", &ids("ab")), plain("e", "")]).await;
    let mut case = Case::new(source.settings());
    case.syncs().await;
    case.hand.advance(Duration::from_secs(3600));
    case.syncs().await;
    assert!(case.feed.state().index().is_empty());
}

#[tokio::test]
async fn a_body_that_breaks_off_changes_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    // The document is whole, the body is not: more was announced.
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{}",
        plain_body()
    );
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let mut case = Case::new(settings(url));
    let error = case.fails().await;
    assert!(error.contains("broke off"), "{error}");
    assert_eq!((case.revoked().as_str(), case.age()), ("", None));
    server.await.unwrap();
}

#[tokio::test]
async fn a_delta_delivered_twice_changes_nothing_and_one_out_of_order_leads_to_a_snapshot() {
    let source = Source::playing([
        snapshot("e", "1", &ids("a")),
        delta("e", "1", "2", &ids("b")),
        // An old answer from a cache.
        delta("e", "1", "2", &ids("b")),
        snapshot("e", "4", &ids("abc")),
        // The same change again, under a new cursor.
        delta("e", "4", "5", &ids("c")),
        delta("f", "5", "6", &ids("d")),
        snapshot("f", "6", &ids("d")),
    ])
    .await;
    let mut case = Case::new(source.settings());
    case.syncs().await;
    case.syncs().await;
    let error = case.fails().await;
    assert!(error.contains("does not begin where it was asked to"), "{error}");
    assert_eq!(case.revoked(), "ab");
    case.syncs().await;
    let generation = case.generation();
    case.syncs().await;
    assert_eq!((case.revoked().as_str(), case.generation()), ("abc", generation));
    let error = case.fails().await;
    assert!(error.contains("another epoch"), "{error}");
    case.syncs().await;
    assert_eq!(case.revoked(), "d");
    assert_eq!(source.asked(), ["", "cursor=1", "cursor=2", "", "cursor=4", "cursor=5", ""]);
}

#[tokio::test]
async fn broken_and_foreign_entries_are_counted_and_the_rest_is_in_force() {
    let entries = format!(r#"{}, {{"jti": 1}}, {{"jti": "b", "iss": "https://elsewhere/"}}"#, ids("a"));
    let source = Source::playing([plain("e", &entries)]).await;
    let mut case = Case::new(source.settings());
    case.syncs().await;
    assert_eq!(case.revoked(), "a");
    let stats = case.feed.stats();
    let counts = [&stats.applied, &stats.broken, &stats.foreign];
    assert_eq!(counts.map(|count| count.load(std::sync::atomic::Ordering::Relaxed)), [1, 1, 1]);
}

#[tokio::test]
async fn survives_a_restart_while_the_server_is_down_and_goes_on_by_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::playing([
        snapshot("e", "1", &ids("ab")),
        delta("e", "1", "2", &ids("c")),
        Reply::status(503),
    ])
    .await;
    let mut settings = source.settings();
    settings.state_dir = Some(dir.path().to_owned());
    let hasher = load_fact_hasher(Some(dir.path()));
    let mut case = Case::with(settings.clone(), hasher, NOW);
    case.syncs().await;
    case.syncs().await;
    drop(case);

    let later = NOW.plus(Duration::from_secs(90));
    let mut case = Case::with(settings.clone(), load_fact_hasher(Some(dir.path())), later);
    case.feed.replica.restore().await;
    // What it revokes is revoked at once; what else was meanwhile, it waits to hear.
    assert_eq!((case.revoked().as_str(), case.age()), ("abc", None));
    case.feed.step().await;
    assert_eq!((case.revoked().as_str(), case.age()), ("abc", Some(Duration::from_secs(90))));
    assert_eq!(source.asked().last().unwrap(), "cursor=2");

    // The wall clock went back: the age cannot be told, so the copy is as stale as can be, but what it revokes it does.
    let earlier = UnixSeconds(NOW.0 - 1);
    let mut case = Case::with(settings, load_fact_hasher(Some(dir.path())), earlier);
    case.feed.replica.restore().await;
    case.feed.replica.rely_on_copy();
    assert_eq!(case.revoked(), "abc");
    let freshness = case.feed.state().freshness(Monotonic::default(), Duration::MAX);
    assert!(matches!(freshness, Freshness::Stale { .. }));
}

#[tokio::test]
async fn an_unchanged_feed_keeps_the_age_of_its_copy_current() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::playing([snapshot("e", "1", &ids("a")), delta("e", "1", "1", "")]).await;
    let mut settings = source.settings();
    settings.state_dir = Some(dir.path().to_owned());
    let hasher = load_fact_hasher(Some(dir.path()));
    let mut case = Case::with(settings.clone(), hasher.clone(), NOW);
    case.syncs().await;
    case.hand.advance(Duration::from_secs(60));
    case.syncs().await;

    let mut case = Case::with(settings, hasher, NOW.plus(Duration::from_secs(70)));
    case.feed.replica.restore().await;
    case.feed.replica.rely_on_copy();
    assert_eq!(case.age(), Some(Duration::from_secs(10)));
}

#[tokio::test]
async fn a_copy_waits_for_a_silent_source_only_so_long() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::playing([snapshot("e", "1", &ids("a")), Reply::Hang]).await;
    let mut settings = source.settings();
    settings.state_dir = Some(dir.path().to_owned());
    if let RevocationSource::Http { long_poll, .. } = &mut settings.source {
        *long_poll = Some(Duration::from_secs(30));
    }
    let mut case = Case::with(settings.clone(), load_fact_hasher(Some(dir.path())), NOW);
    case.syncs().await;

    let mut case = Case::with(settings, load_fact_hasher(Some(dir.path())), NOW);
    case.feed.restore().await;
    let (state, stats) = (case.feed.state(), case.feed.stats());
    assert!(!state.is_loaded());
    let task = tokio::spawn(case.feed.run());
    eventually("asked", || source.asked().len() == 2).await;
    assert_eq!(source.asked()[1], "cursor=1", "and not to hold back");
    tokio::time::pause();
    eventually("relied on", || state.is_loaded()).await;
    assert_eq!(stats.failures.load(std::sync::atomic::Ordering::Relaxed), 0);
    task.abort();
}

#[tokio::test]
async fn a_state_dir_that_cannot_be_used_costs_only_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::playing([plain("e", &ids("a")), plain("e", &ids("b"))]).await;
    let mut settings = source.settings();
    settings.state_dir = Some(dir.path().join("missing"));
    let mut case = Case::new(settings);
    case.feed.replica.restore().await;
    case.syncs().await;
    case.syncs().await;
    assert_eq!(case.revoked(), "b");
    assert_ne!(case.feed.stats().store_failures.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_file_is_read_when_it_changed_and_a_bad_one_keeps_the_last_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("revocations.json");
    let mut settings = settings(Url::parse("http://127.0.0.1/").unwrap());
    settings.source = RevocationSource::File { path: path.clone(), max_bytes: 10_000 };
    let mut case = Case::new(settings);
    assert!(case.fails().await.contains("check that it exists"));

    put(&path, &document("e", &ids("a")));
    case.syncs().await;
    case.syncs().await;
    assert_eq!((case.revoked().as_str(), case.generation()), ("a", 1));

    let bad = [String::new(), "{".to_owned(), document("e", ""), " ".repeat(10_001)];
    for bad in bad {
        put(&path, &bad);
        case.hand.advance(Duration::from_secs(3));
        case.fails().await;
        case.fails().await;
        assert_eq!((case.revoked().as_str(), case.age().unwrap().is_zero()), ("a", false), "{bad}");
        put(&path, &document("e", &ids("a")));
        case.syncs().await;
        assert_eq!((case.generation(), case.age()), (1, Some(Duration::ZERO)));
    }

    put(&path, &document("f", ""));
    case.syncs().await;
    assert_eq!((case.revoked().as_str(), case.generation()), ("", 2));
}

fn document(epoch: &str, entries: &str) -> String {
    format!(r#"{{"version": 1, "epoch": "{epoch}", "kind": "snapshot", "entries": [{entries}]}}"#)
}

fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn runs_until_it_is_dropped_through_failures() {
    let source = Source::playing([
        Reply::status(503),
        snapshot("e", "1", &ids("a")),
        Reply::status(502),
        delta("e", "1", "2", &ids("b")),
    ])
    .await;
    let mut settings = source.settings();
    settings.interval = Duration::ZERO;
    let feed = RevocationFeed::new(settings, FactHasher::random(), Clock::system()).unwrap();
    let state = feed.state();
    let mut feed = feed;
    feed.restore().await;
    let task = tokio::spawn(feed.run());
    eventually("both changes", || revoked(&state) == "ab").await;
    task.abort();
}

#[tokio::test]
async fn a_million_bytes_in_many_chunks_are_taken_whole() {
    let entries: Vec<String> =
        (0..10_000).map(|n| format!(r#"{{"jti": "{n}", "note": "{n:0>80}"}}"#)).collect();
    let source = Source::playing([plain("e", &format!("{}, {}", ids("a"), entries.join(",")))]).await;
    let mut settings = source.settings();
    settings.max_entries = 20_000;
    if let RevocationSource::Http { fetch, .. } = &mut settings.source {
        fetch.max_bytes = DEFAULT_MAX_BYTES;
    }
    let mut case = Case::new(settings);
    case.syncs().await;
    assert_eq!((case.revoked().as_str(), case.feed.state().index().len()), ("a", 10_001));
}
