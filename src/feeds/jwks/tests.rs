use std::io::Write as _;
use std::sync::Mutex;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::clock::{ClockHand, UnixSeconds};
use crate::feeds::testing::{Reply, TestServer, eventually};
use crate::keys::testing::{Signer, jwks};
use crate::keys::{KeyMiss, LookAgain};

/// A provider whose answer the test changes while it runs.
struct Provider {
    server: TestServer,
    reply: Arc<Mutex<Reply>>,
}

impl Provider {
    async fn start(reply: Reply) -> Self {
        let reply = Arc::new(Mutex::new(reply));
        let script = Arc::clone(&reply);
        let server = TestServer::start(move |_| script.lock().unwrap().clone()).await;
        Self { server, reply }
    }

    fn now_says(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn settings(&self) -> KeyFeedSettings {
        settings(KeyOrigin::JwksUrl(self.server.url("/jwks")))
    }
}

fn settings(origin: KeyOrigin) -> KeyFeedSettings {
    KeyFeedSettings {
        name: "main".to_owned(),
        issuer: "https://id.example.com".to_owned(),
        origin,
        fetch: FetchSettings { timeout: Duration::from_millis(500), ..FetchSettings::default() },
        algorithms: Algorithm::ALL.to_vec(),
        intervals: RefreshIntervals::default(),
        source: KeySourceSettings { wait: Duration::from_secs(30), ..KeySourceSettings::default() },
        state_dir: None,
    }
}

/// Refreshes all the time.
fn restless(settings: KeyFeedSettings) -> KeyFeedSettings {
    let often = Duration::from_millis(5);
    KeyFeedSettings { intervals: RefreshIntervals { usual: often, least: often, most: often }, ..settings }
}

/// A feed that runs until it is dropped.
struct Running {
    source: Arc<KeySource>,
    stats: Arc<KeyFeedStats>,
    clock: Clock,
    hand: ClockHand,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(settings: KeyFeedSettings) -> Self {
        let (clock, hand) = Clock::manual(UnixSeconds(1_800_000_000));
        Self::start_at(settings, clock, hand)
    }

    fn start_at(settings: KeyFeedSettings, clock: Clock, hand: ClockHand) -> Self {
        Self::of(KeyFeed::new(settings, clock.clone()).unwrap(), clock, hand)
    }

    /// Returns once the copy from before a restart was read.
    async fn restart(settings: KeyFeedSettings, (clock, hand): (Clock, ClockHand)) -> Self {
        let mut feed = KeyFeed::new(settings, clock.clone()).unwrap();
        feed.restore().await;
        Self::of(feed, clock, hand)
    }

    fn of(feed: KeyFeed, clock: Clock, hand: ClockHand) -> Self {
        let (source, stats) = (feed.source(), feed.stats());
        Self { source, stats, clock, hand, task: tokio::spawn(feed.run()) }
    }

    fn kids(&self) -> Vec<String> {
        let state = self.source.current();
        let Some(set) = state.keys(self.clock.monotonic()) else { return vec![] };
        set.iter().map(|key| key.kid().unwrap_or_default().to_owned()).collect()
    }

    fn error(&self) -> String {
        self.source.current().last_error().unwrap_or_default().to_owned()
    }

    fn ok(&self) -> u64 {
        self.stats.refreshes_ok.load(Ordering::Relaxed)
    }

    fn failed(&self) -> u64 {
        self.stats.refreshes_failed.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn set_of(kids: &[&str]) -> Reply {
    Reply::ok(jwks(&kids.iter().map(|kid| Signer::p256().jwk(kid)).collect::<Vec<_>>()))
}

#[tokio::test]
async fn a_rotated_key_is_picked_up_on_first_sight() {
    let provider = Provider::start(set_of(&["old"])).await;
    let feed = Running::start(provider.settings());
    eventually("the first keys", || feed.kids() == ["old"]).await;
    provider.now_says(set_of(&["old", "new"]));
    let miss = |kid| {
        let state = feed.source.current();
        state.keys(feed.clock.monotonic()).unwrap().select(Some(kid), Algorithm::Es256).map(|_| ()).err()
    };
    assert_eq!(miss("new"), Some(KeyMiss::UnknownKid));
    assert_eq!(feed.source.look_again(None).await, LookAgain::Refreshed);
    assert_eq!(miss("new"), None);
}

#[tokio::test]
async fn a_flood_of_bogus_keys_does_not_reach_the_provider() {
    let provider = Provider::start(set_of(&["a"])).await;
    let feed = Running::start(provider.settings());
    eventually("the first keys", || feed.kids() == ["a"]).await;
    for number in 0..100_000 {
        let kid = format!("bogus-{number}");
        assert_eq!(feed.source.look_again(Some(&kid)).await, LookAgain::Refreshed);
    }
    assert_eq!(provider.server.hits(), 2);
    feed.hand.advance(Duration::from_secs(5));
    assert_eq!(feed.source.look_again(Some("bogus-0")).await, LookAgain::Refreshed);
    assert_eq!(provider.server.hits(), 2, "it was looked for a moment ago");
    feed.source.look_again(Some("bogus-1")).await;
    assert_eq!(provider.server.hits(), 3);
    // Once other keys are there, what was unknown may be among the next.
    provider.now_says(set_of(&["a", "b"]));
    feed.hand.advance(Duration::from_secs(5));
    feed.source.look_again(Some("b")).await;
    assert_eq!((feed.kids(), provider.server.hits()), (vec!["a".to_owned(), "b".to_owned()], 4));
    feed.hand.advance(Duration::from_secs(5));
    feed.source.look_again(Some("bogus-1")).await;
    assert_eq!(provider.server.hits(), 5);
}

#[tokio::test]
async fn whatever_a_broken_provider_says_the_good_keys_stay() {
    let provider = Provider::start(set_of(&["good"])).await;
    let feed = Running::start(provider.settings());
    eventually("the first keys", || feed.kids() == ["good"]).await;
    let generation = feed.source.current().generation(feed.clock.monotonic());
    let oct = jwks(&[json!({ "kty": "oct", "k": "AAAA" })]);
    let broken: [(Reply, &str); 10] = [
        (Reply::status(500), "status 500"),
        (Reply::status(302).with("location", "/elsewhere"), "redirects"),
        (Reply::ok("<html>maintenance</html>"), "not JSON"),
        (Reply::ok(""), "not JSON"),
        (Reply::ok("{}"), "no JWK set"),
        (Reply::ok(r#"{"keys":[]}"#), "empty"),
        (Reply::ok(oct), "symmetric"),
        (Reply::ok(vec![b' '; (1 << 20) + 1]), "more than 1048576 bytes"),
        (Reply::Stall, "did not answer completely"),
        (Reply::BreakOff, "broke off"),
    ];
    for (reply, expected) in broken {
        provider.now_says(reply);
        feed.hand.advance(Duration::from_secs(5));
        assert_eq!(feed.source.look_again(None).await, LookAgain::Failed, "{expected}");
        assert!(feed.error().contains(expected), "{expected}: {}", feed.error());
        assert_eq!(feed.kids(), ["good"], "{expected}");
        assert_eq!(feed.source.current().generation(feed.clock.monotonic()), generation, "{expected}");
    }
    provider.now_says(set_of(&["good again"]));
    eventually("recovery without being asked", || feed.kids() == ["good again"]).await;
    assert_eq!(feed.error(), "");
}

#[tokio::test]
async fn the_first_fetch_is_retried_until_the_provider_is_there() {
    let provider = Provider::start(Reply::status(503)).await;
    let feed = Running::start(provider.settings());
    eventually("two failures", || feed.failed() >= 2).await;
    assert!(feed.kids().is_empty());
    assert_eq!(feed.stats.last_success(), None);
    provider.now_says(set_of(&["a"]));
    eventually("the keys", || feed.kids() == ["a"]).await;
    assert!(feed.stats.last_success().is_some());
}

#[tokio::test]
async fn scheduled_refreshes_bring_arrivals_and_departures() {
    let provider = Provider::start(set_of(&["a", "b"])).await;
    let feed = Running::start(restless(provider.settings()));
    eventually("the first keys", || feed.kids() == ["a", "b"]).await;
    provider.now_says(set_of(&["b", "c"]));
    eventually("the next keys", || feed.kids() == ["b", "c"]).await;
    assert_eq!(feed.source.asks(), 0);
}

#[tokio::test]
async fn good_keys_end_at_max_stale_and_not_before() {
    let provider = Provider::start(set_of(&["a"])).await;
    let feed = Running::start(restless(provider.settings()));
    eventually("the keys", || feed.kids() == ["a"]).await;
    provider.now_says(Reply::status(500));
    eventually("a failure", || feed.failed() > 0).await;
    feed.hand.advance(Duration::from_secs(24 * 60 * 60 - 1));
    assert_eq!(feed.kids(), ["a"]);
    feed.hand.advance(Duration::from_secs(1));
    assert!(feed.kids().is_empty());
}

#[tokio::test]
async fn an_unchanged_set_is_confirmed_by_its_tag() {
    let set = jwks(&[Signer::p256().jwk("a")]);
    let server = TestServer::start(move |request| match request.headers().get("if-none-match") {
        Some(tag) if tag == "\"v1\"" => Reply::Say(304, vec![], Bytes::new()),
        Some(_) => Reply::status(500),
        None => Reply::ok(set.clone()).with("etag", "\"v1\""),
    })
    .await;
    let feed = Running::start(restless(settings(KeyOrigin::JwksUrl(server.url("/jwks")))));
    eventually("confirmations", || feed.ok() > 3).await;
    assert_eq!(feed.failed(), 0);
    feed.hand.advance(Duration::from_secs(23 * 60 * 60));
    let before = feed.ok();
    eventually("another confirmation", || feed.ok() > before + 1).await;
    feed.hand.advance(Duration::from_secs(23 * 60 * 60));
    assert_eq!(feed.kids(), ["a"], "a 304 renews the keys");
}

#[tokio::test]
async fn a_tag_of_a_refused_set_is_not_sent() {
    let server = TestServer::start(|request| {
        assert!(!request.headers().contains_key("if-none-match"));
        Reply::ok("{}").with("etag", "\"broken\"")
    })
    .await;
    let feed = Running::start(settings(KeyOrigin::JwksUrl(server.url("/jwks"))));
    eventually("two failures", || feed.failed() >= 2).await;
}

/// Metadata and keys on one server; the metadata leads where `keys_at` says.
async fn discovering(
    issuer_path: &'static str,
    serves_oidc: bool,
    keys_at: &Arc<Mutex<&'static str>>,
) -> TestServer {
    let keys_at = Arc::clone(keys_at);
    TestServer::start(move |request| {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let metadata = json!({
            "issuer": format!("http://{host}{issuer_path}"),
            "jwks_uri": format!("http://{host}{}", keys_at.lock().unwrap()),
        });
        match request.uri().path() {
            "/realm/.well-known/openid-configuration" if serves_oidc => Reply::ok(metadata.to_string()),
            "/.well-known/oauth-authorization-server/realm" => Reply::ok(metadata.to_string()),
            "/jwks-1" if *keys_at.lock().unwrap() == "/jwks-1" => set_of(&["one"]).with("etag", "\"same\""),
            "/jwks-2" if !request.headers().contains_key("if-none-match") => {
                set_of(&["two"]).with("etag", "\"same\"")
            }
            _ => Reply::status(404),
        }
    })
    .await
}

fn discovery_settings(server: &TestServer, issuer_path: &str) -> KeyFeedSettings {
    KeyFeedSettings {
        issuer: server.url(issuer_path).to_string(),
        ..settings(KeyOrigin::Discovery { document: None })
    }
}

#[tokio::test]
async fn keys_are_found_by_either_kind_of_metadata_and_again_when_they_move() {
    for serves_oidc in [true, false] {
        let keys_at = Arc::new(Mutex::new("/jwks-1"));
        let server = discovering("/realm", serves_oidc, &keys_at).await;
        let feed = Running::start(restless(discovery_settings(&server, "/realm")));
        eventually("the keys", || feed.kids() == ["one"]).await;
        *keys_at.lock().unwrap() = "/jwks-2";
        eventually("the keys in their new place", || feed.kids() == ["two"]).await;
    }
}

#[tokio::test]
async fn metadata_of_another_issuer_is_refused() {
    let keys_at = Arc::new(Mutex::new("/jwks-1"));
    let server = discovering("/realm/", true, &keys_at).await;
    let feed = Running::start(discovery_settings(&server, "/realm"));
    eventually("a failure", || feed.failed() > 0).await;
    assert!(feed.error().contains("to the letter"), "{}", feed.error());
    assert!(feed.kids().is_empty());
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    let feed = Running::start(settings(KeyOrigin::File(path.clone())));
    eventually("a failure", || feed.failed() > 0).await;
    assert!(feed.error().contains("jwks.json cannot be read"), "{}", feed.error());
    for (kid, content) in [("a", set_of(&["a"])), ("b", set_of(&["b"]))] {
        let Reply::Say(_, _, content) = content else { unreachable!() };
        std::fs::write(&path, content).unwrap();
        feed.hand.advance(Duration::from_secs(5));
        assert_eq!(feed.source.look_again(None).await, LookAgain::Refreshed);
        assert_eq!(feed.kids(), [kid]);
    }
    std::fs::write(&path, "{").unwrap();
    feed.hand.advance(Duration::from_secs(5));
    assert_eq!(feed.source.look_again(None).await, LookAgain::Failed);
    assert_eq!(feed.kids(), ["b"]);
}

#[tokio::test]
async fn inline_keys_are_there_from_the_start_and_do_not_age() {
    let inline = |jwks| settings(KeyOrigin::Inline(jwks));
    let feed = Running::start(inline(jwks(&[Signer::ed25519().jwk("a")])));
    assert_eq!(feed.kids(), ["a"]);
    feed.hand.advance(Duration::from_secs(365 * 24 * 60 * 60));
    assert_eq!(feed.kids(), ["a"]);
    eventually("the end of the task", || feed.task.is_finished()).await;
    assert_eq!(feed.source.look_again(None).await, LookAgain::Refreshed, "what is not there is unknown");

    let (clock, _) = Clock::manual(UnixSeconds(0));
    assert!(matches!(KeyFeed::new(inline(b"{}".to_vec()), clock), Err(KeyFeedError::Inline(_))));
}

#[tokio::test]
async fn a_restart_while_the_provider_is_down_starts_from_the_copy() {
    let directory = tempfile::tempdir().unwrap();
    let provider = Provider::start(set_of(&["a"])).await;
    let stored = || KeyFeedSettings { state_dir: Some(directory.path().to_owned()), ..provider.settings() };
    {
        let feed = Running::start(stored());
        eventually("the copy", || std::fs::read_dir(directory.path()).unwrap().count() == 1 && feed.ok() > 0)
            .await;
    }
    provider.now_says(Reply::Hang);
    let hours_later = |hours: i64| Clock::manual(UnixSeconds(1_800_000_000 + hours * 3600));

    let feed = Running::restart(stored(), hours_later(23)).await;
    assert_eq!(feed.kids(), ["a"], "before the first fetch has ended");
    feed.hand.advance(Duration::from_secs(3600));
    assert!(feed.kids().is_empty(), "the copy's age counts");

    assert!(Running::restart(stored(), hours_later(24)).await.kids().is_empty());

    let other = KeyOrigin::JwksUrl(provider.server.url("/other"));
    let moved = KeyFeedSettings { origin: other, ..stored() };
    assert!(Running::restart(moved, hours_later(0)).await.kids().is_empty(), "a copy from elsewhere");

    for entry in std::fs::read_dir(directory.path()).unwrap() {
        std::fs::write(entry.unwrap().path(), "torn").unwrap();
    }
    assert!(Running::restart(stored(), hours_later(0)).await.kids().is_empty(), "a damaged copy");
}

/// The copy is a pipe here, which is read for as long as the test likes.
#[tokio::test]
async fn a_disk_that_hangs_stops_no_keys_and_what_it_has_counts_once_it_answers() {
    let directory = tempfile::tempdir().unwrap();
    let provider = Provider::start(set_of(&["a"])).await;
    let stored = || KeyFeedSettings { state_dir: Some(directory.path().to_owned()), ..provider.settings() };
    let copy = || std::fs::read_dir(directory.path()).unwrap().next().map(|file| file.unwrap().path());
    {
        let feed = Running::start(stored());
        eventually("the copy", || copy().is_some_and(|path| path.extension().unwrap() == "json")).await;
        assert_eq!(feed.kids(), ["a"]);
    }
    let path = copy().unwrap();
    let kept = std::fs::read(&path).unwrap();
    // Open at both ends, so that it can be answered whatever becomes of its name.
    let hang = || {
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap()
    };

    let mut disk = hang();
    let feed = Running::start(stored());
    eventually("fetched all the same", || feed.kids() == ["a"] && feed.ok() > 0).await;
    provider.now_says(set_of(&["b"]));
    feed.source.look_again(Some("b")).await;
    assert_eq!(feed.kids(), ["b"]);
    disk.write_all(&kept).unwrap();
    drop(disk);
    provider.now_says(Reply::status(500));
    feed.hand.advance(Duration::from_secs(60));
    feed.source.look_again(Some("c")).await;
    assert_eq!(feed.kids(), ["b"], "what was fetched is newer");
    let is_stored =
        || path.is_file() && std::fs::read(&path).unwrap().windows(3).any(|text| text == b"b\\\"");
    eventually("and is stored", is_stored).await;
    drop(feed);

    let mut disk = hang();
    let feed = Running::start(stored());
    eventually("asked in vain", || feed.failed() > 1).await;
    assert!(feed.kids().is_empty());
    disk.write_all(&kept).unwrap();
    drop(disk);
    eventually("read at last", || feed.kids() == ["a"]).await;
}

#[tokio::test]
async fn keys_of_other_algorithms_are_kept_out_and_counted() {
    let set = jwks(&[Signer::p256().jwk("ec"), Signer::rsa().jwk("rsa")]);
    let provider = Provider::start(Reply::ok(set)).await;
    let feed = Running::start(KeyFeedSettings { algorithms: vec![Algorithm::Es256], ..provider.settings() });
    eventually("the keys", || feed.kids() == ["ec"]).await;
    assert_eq!((0..Unusable::NAMES.len()).map(|reason| feed.stats.skipped_keys(reason)).sum::<u64>(), 1);
    assert_eq!(feed.stats.keys.load(Ordering::Relaxed), 1);
}

/// What is logged while it is held, level first.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The second dispatch makes `tracing` ask all of them whether a message is wanted. While there is but one, it asks
    /// the thread that first logs it, which may be that of another test, and remembers the answer.
    fn capture() -> (Self, tracing::subscriber::DefaultGuard, tracing::Dispatch) {
        let log = Self::default();
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber), second)
    }

    fn lines_with(&self, text: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_change_is_logged_once_and_no_retry_is() {
    let (log, _guard, _second) = Log::capture();
    let mut leak = Signer::p256().jwk("leak");
    leak["d"] = json!("c2VjcmV0");
    let set = |jwk: &serde_json::Value| jwks(&[jwk.clone(), json!({ "kty": "oct", "kid": "shared" })]);
    let provider = Provider::start(Reply::ok(set(&leak))).await;
    let feed = Running::start(restless(provider.settings()));
    eventually("several refreshes", || feed.ok() > 3).await;
    provider.now_says(Reply::status(500));
    eventually("several failures", || feed.failed() > 2).await;
    let next = Signer::p256().jwk("next\n");
    provider.now_says(Reply::ok(set(&next)));
    eventually("the next key", || feed.kids() == ["next\n"]).await;

    for (text, level) in [
        ("kid=\"leak\" thumbprint=", "INFO"),
        ("has withdrawn a key", "INFO"),
        ("kid=\"next\\n\"", "INFO"),
        ("key \"shared\": it is symmetric", "WARN"),
        ("publishes a PRIVATE key", "ERROR"),
        ("status 500", "WARN"),
        ("refreshed again", "INFO"),
    ] {
        let lines = log.lines_with(text);
        let expected = if text.starts_with("kid=\"leak") { 2 } else { 1 };
        assert_eq!(lines.len(), expected, "{text}: {lines:?}");
        assert!(lines[0].trim_start().starts_with(level), "{lines:?}");
    }
    assert!(log.lines_with("c2VjcmV0").is_empty());
}
