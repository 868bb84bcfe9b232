//! What becomes of a token that was let in, while feeds go silent, lists change and configurations follow each other.

use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use url::Url;

use super::super::status::{Copy, StatusList, StatusListSettings, StatusLists, TrackedList, WantedLists};
use super::super::{Index, WhenStale};
use super::*;
use crate::clock::{ClockHand, Monotonic};
use crate::keys::testing::{Signer, jwks};
use crate::keys::{Algorithm, JwksLimits, KeySet, KeySource, KeySourceSettings, parse_jwks};
use crate::token::{
    Audiences, BearerToken, Binding, Expectations, FailFast, Inputs, IssuerId, Issuers, LookedAgain, Verdict,
    Verifier,
};

const ISSUER: &str = "https://id.example.com/";
const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const MAX_STALENESS: Duration = Duration::from_secs(60);

/// One issuer, whose tokens are in a list and whose feed can go silent.
struct Bench {
    clock: Clock,
    hand: ClockHand,
    hasher: FactHasher,
    token: VerifiedToken,
    /// In another list, and soon over.
    other: VerifiedToken,
    feed: Arc<FeedState>,
}

impl Bench {
    fn new() -> Self {
        let (clock, hand) = Clock::manual(NOW);
        let (keys, published) = KeySource::new(clock.clone(), KeySourceSettings::default());
        let signer = Signer::p256();
        let set = parse_jwks(&jwks(&[signer.jwk("k1")]), &Algorithm::ALL, JwksLimits::default()).unwrap();
        published.publish(KeySet::new(set.keys));
        let expectations = Expectations {
            audiences: Audiences::AnyOf(vec!["orders-api".into()]),
            algorithms: vec![Algorithm::Es256],
            leeway: Duration::ZERO,
            max_lifetime: None,
            required_claims: Vec::new(),
            profile: None,
            binding: Binding::default(),
        };
        let (name, url) = ("main".into(), ISSUER.into());
        let issuer = Issuer { id: IssuerId(0), name, url, expectations, keys, introspection: None };
        let verifier = Verifier::new(Issuers::new(vec![Arc::new(issuer)]));
        let [token, other] =
            [("1", 3600), ("2", 1)].map(|(list, lifetime)| verified(&verifier, &signer, list, lifetime));
        let hasher = FactHasher::random();
        let index = Index::new(hasher.clone(), [ISSUER.to_owned()], Duration::ZERO, 100);
        Self { clock, hand, hasher, token, other, feed: Arc::new(FeedState::new("logout", index)) }
    }

    /// The policies of a configuration that follows at most so many lists.
    fn policies(&self, epoch: u64, max_lists: usize) -> (RevocationPolicies, Arc<StatusLists>, WantedLists) {
        let allowed = vec![Url::parse("https://id.example.com/lists/").unwrap()];
        let (lists, wanted) = StatusLists::new(StatusListSettings {
            allowed,
            required: false,
            max_lists,
            wait: Duration::ZERO,
        });
        let policy = RevocationPolicy {
            feeds: vec![Arc::clone(&self.feed)],
            status_lists: Some(Arc::clone(&lists)),
            max_staleness: MAX_STALENESS,
            when_stale: WhenStale::Reject,
        };
        let by_issuer = vec![(Arc::clone(self.token.issuer()), policy)];
        (RevocationPolicies::new(self.hasher.clone(), epoch, by_issuer), lists, wanted)
    }

    fn publish(&self, lists: &StatusLists, list: &TrackedList, bits: u8) {
        let copy = Copy {
            list: Arc::new(StatusList::new(1, vec![bits]).unwrap()),
            heard: self.clock.monotonic(),
            age: Duration::ZERO,
            issued_at: NOW,
            expires: None,
        };
        lists.publish(list, copy);
    }

    fn admit(&self, policies: &RevocationPolicies) -> Result<LiveToken, Rejection> {
        policies.admit(Rc::new(policies.candidate(self.token.clone())?), &self.clock)
    }
}

fn verified(verifier: &Verifier, signer: &Signer, list: &str, lifetime: i64) -> VerifiedToken {
    let claims = json!({
        "iss": ISSUER, "aud": "orders-api", "sub": "alice", "iat": NOW.0 - 1, "exp": NOW.0 + lifetime,
        "status": { "status_list": { "idx": 0, "uri": format!("https://id.example.com/lists/{list}") } },
    });
    let [header, claims] =
        [r#"{"alg":"ES256","kid":"k1"}"#, &claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signature = signer.sign(Algorithm::Es256, format!("{header}.{claims}").as_bytes());
    let token = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature));
    let trusted = [IssuerId(0)].into_iter().collect();
    let inputs = Inputs {
        trusted: &trusted,
        now: NOW,
        monotonic: Monotonic::default(),
        looked_again: LookedAgain::Refreshed,
        introspected: None,
    };
    match verifier.verify(BearerToken::new(&token).unwrap(), inputs, &mut FailFast) {
        Verdict::Verified(token) => token,
        _ => panic!("not verified"),
    }
}

#[test]
fn a_list_revokes_what_was_let_in_though_a_feed_is_silent() {
    let bench = Bench::new();
    let (policies, lists, mut wanted) = bench.policies(0, 10);
    bench.feed.heard(bench.clock.monotonic());
    drop(policies.candidate(bench.token.clone()).unwrap());
    let list = wanted.try_recv().unwrap();
    bench.publish(&lists, &list, 0);
    let live = bench.admit(&policies).unwrap();

    bench.hand.advance(MAX_STALENESS * 2);
    bench.publish(&lists, &list, 0b10);
    assert_eq!(bench.admit(&policies).unwrap_err().reason(), Reason::FeedStale);
    let seen = live.generation();
    assert_eq!(policies.recheck(&live, seen, &bench.clock), Ok(seen), "asked again while the feed is silent");
    bench.publish(&lists, &list, 0b11);
    assert_eq!(policies.recheck(&live, seen, &bench.clock), Err(None));
}

#[test]
fn a_list_that_there_was_no_room_for_after_a_reload_is_asked_for_again() {
    let bench = Bench::new();
    let (before, lists, mut wanted) = bench.policies(0, 10);
    bench.feed.heard(bench.clock.monotonic());
    drop(before.candidate(bench.token.clone()).unwrap());
    bench.publish(&lists, &wanted.try_recv().unwrap(), 0);
    let live = bench.admit(&before).unwrap();

    let (after, lists, mut wanted) = bench.policies(1, 1);
    drop(after.candidate(bench.other.clone()).unwrap());
    let in_the_way = wanted.try_recv().unwrap();
    let mut seen = after.recheck(&live, live.generation(), &bench.clock).unwrap();
    assert!(wanted.try_recv().is_err(), "there is no room for it");

    bench.hand.advance(Duration::from_secs(1000));
    assert!(!lists.keeps(&in_the_way, bench.clock.wall()), "its last token has expired");
    bench.feed.heard(bench.clock.monotonic());
    seen = after.recheck(&live, seen, &bench.clock).unwrap();
    bench.publish(&lists, &wanted.try_recv().unwrap(), 1);
    assert_eq!(after.recheck(&live, seen, &bench.clock), Err(None));
}
