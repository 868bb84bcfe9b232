//! The verifier as a whole, with time and keys in hand: which reason is given, in which order, and that the two ways
//! to run the checks never disagree.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::catalogue::Reason;
use crate::clock::{Clock, Monotonic, UnixSeconds};
use crate::keys::testing::{Signer, jwks};
use crate::keys::{Algorithm, JwksLimits, KeyFeedHandle, KeySet, KeySource, KeySourceSettings, parse_jwks};

const URL: &str = "https://id.example.com/";
const NOW: i64 = 1_800_000_000;
const LEEWAY: i64 = 30;

/// An issuer whose key is at hand, and the verifier that trusts it.
struct Bench {
    signer: Signer,
    verifier: Verifier,
    feed: KeyFeedHandle,
    trusted: IssuerSet,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Expectations)) -> Self {
        Self::asking(change, None)
    }

    fn asking(change: impl FnOnce(&mut Expectations), introspection: Option<Introspection>) -> Self {
        let (clock, _) = Clock::manual(UnixSeconds(NOW));
        let (keys, feed) = KeySource::new(clock, KeySourceSettings::default());
        let signer = Signer::p256();
        feed.publish(key_set(&[signer.jwk("k1")]));
        let mut expectations = Expectations {
            audiences: Audiences::AnyOf(vec!["orders-api".into()]),
            algorithms: vec![Algorithm::Es256],
            leeway: Duration::from_secs(LEEWAY.unsigned_abs()),
            max_lifetime: None,
            required_claims: Vec::new(),
            profile: None,
            binding: Binding::default(),
        };
        change(&mut expectations);
        let issuer = Issuer {
            id: IssuerId(0),
            name: "main".into(),
            url: URL.into(),
            expectations,
            keys,
            introspection,
        };
        let verifier = Verifier::new(Issuers::new(vec![Arc::new(issuer)]));
        Self { signer, verifier, feed, trusted: [IssuerId(0)].into_iter().collect() }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            trusted: &self.trusted,
            now: UnixSeconds(NOW),
            monotonic: Monotonic::default(),
            looked_again: LookedAgain::Refreshed,
            introspected: None,
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let input = format!("{}.{}", encoded(header), encoded(claims));
        let signature = self.signer.sign(Algorithm::Es256, input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn verdict(&self, token: &str) -> Result<VerifiedToken, Reason> {
        match self.verifier.verify(BearerToken::new(token).unwrap(), self.inputs(), &mut FailFast) {
            Verdict::Verified(token) => Ok(token),
            Verdict::Refused(rejection) => Err(rejection.reason()),
            Verdict::Needs(need) => panic!("needs {need:?}"),
        }
    }

    fn reason(&self, header: &Value, claims: &Value) -> Option<Reason> {
        self.verdict(&self.token(header, claims)).err()
    }
}

fn key_set(keys: &[Value]) -> KeySet {
    KeySet::new(parse_jwks(&jwks(keys), &Algorithm::ALL, JwksLimits::default()).unwrap().keys)
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn header() -> Value {
    json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" })
}

fn claims() -> Value {
    json!({ "iss": URL, "aud": "orders-api", "exp": NOW + 300, "iat": NOW - 10, "sub": "u1" })
}

/// The object with some members replaced; null removes one.
fn with(mut object: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            object[name] = value.clone();
        }
    }
    object
}

#[test]
fn a_good_token_is_verified_and_carries_what_it_says() {
    let bench = Bench::new(|_| {});
    let token = bench.verdict(&bench.token(&header(), &claims())).unwrap();
    assert_eq!(token.claims().subject(), Some("u1"));
    assert_eq!((token.expires(), token.issued_at()), (UnixSeconds(NOW + 300), Some(UnixSeconds(NOW - 10))));
    assert_eq!(token.key().unwrap().kid(), Some("k1"));
}

#[test]
fn each_rule_on_the_header_has_its_reason() {
    let bench = Bench::new(|_| {});
    for (changes, reason) in [
        (json!({ "typ": null }), None),
        (json!({ "typ": "JWT" }), None),
        (json!({ "typ": "application/AT+JWT" }), None),
        (json!({ "typ": "logout+jwt" }), Some(Reason::WrongType)),
        (json!({ "typ": "dpop+jwt" }), Some(Reason::WrongType)),
        (json!({ "typ": "" }), Some(Reason::WrongType)),
        (json!({ "typ": 1 }), Some(Reason::Malformed)),
        (json!({ "alg": null }), Some(Reason::Malformed)),
        (json!({ "alg": "none" }), Some(Reason::AlgorithmNotAllowed)),
        (json!({ "alg": "HS256" }), Some(Reason::AlgorithmNotAllowed)),
        (json!({ "alg": "es256" }), Some(Reason::AlgorithmNotAllowed)),
        (json!({ "alg": "RS256" }), Some(Reason::AlgorithmNotAllowed)),
        (json!({ "crit": ["exp"] }), Some(Reason::Malformed)),
        (json!({ "crit": [] }), Some(Reason::Malformed)),
        (json!({ "b64": false }), Some(Reason::Malformed)),
        (json!({ "enc": "A256GCM" }), Some(Reason::Malformed)),
        (json!({ "kid": 7 }), Some(Reason::Malformed)),
        (json!({ "kid": "k2" }), Some(Reason::UnknownKey)),
        (json!({ "kid": "" }), Some(Reason::UnknownKey)),
        (json!({ "kid": null }), None),
        (json!({ "jwk": {}, "jku": "https://evil", "x5u": "https://evil" }), None),
    ] {
        assert_eq!(bench.reason(&with(header(), &changes), &claims()), reason, "{changes}");
    }
}

#[test]
fn each_rule_on_the_claims_has_its_reason() {
    let bench = Bench::new(|_| {});
    for (changes, reason) in [
        (json!({ "iss": null }), Some(Reason::ClaimMissing)),
        (json!({ "iss": 1 }), Some(Reason::ClaimInvalid)),
        (json!({ "iss": "https://id.example.com" }), Some(Reason::IssuerNotTrusted)),
        (json!({ "aud": null }), Some(Reason::ClaimMissing)),
        (json!({ "aud": [] }), Some(Reason::AudienceMismatch)),
        (json!({ "aud": ["x", "orders-api"] }), None),
        (json!({ "aud": "Orders-api" }), Some(Reason::AudienceMismatch)),
        (json!({ "aud": { "0": "orders-api" } }), Some(Reason::ClaimInvalid)),
        (json!({ "exp": null }), Some(Reason::ClaimMissing)),
        (json!({ "exp": "9999999999" }), Some(Reason::ClaimInvalid)),
        (json!({ "exp": NOW - LEEWAY }), Some(Reason::Expired)),
        (json!({ "exp": NOW - LEEWAY + 1 }), None),
        (json!({ "exp": 0 }), Some(Reason::Expired)),
        (json!({ "nbf": NOW + LEEWAY }), None),
        (json!({ "nbf": NOW + LEEWAY + 1 }), Some(Reason::NotYetValid)),
        (json!({ "nbf": "soon" }), Some(Reason::ClaimInvalid)),
        (json!({ "iat": NOW + LEEWAY + 1 }), Some(Reason::NotYetValid)),
        (json!({ "iat": [] }), Some(Reason::ClaimInvalid)),
        (json!({ "sub": 1 }), Some(Reason::ClaimInvalid)),
        (json!({ "scope": ["a"] }), Some(Reason::ClaimInvalid)),
    ] {
        assert_eq!(bench.reason(&header(), &with(claims(), &changes)), reason, "{changes}");
    }
}

#[test]
fn configured_rules_apply() {
    let lifetime = Bench::new(|rules| rules.max_lifetime = Some(Duration::from_secs(310)));
    assert_eq!(lifetime.reason(&header(), &claims()), None);
    assert_eq!(
        lifetime.reason(&header(), &with(claims(), &json!({ "iat": NOW - 11 }))),
        Some(Reason::ClaimInvalid)
    );
    assert_eq!(
        lifetime.reason(&header(), &with(claims(), &json!({ "iat": null }))),
        Some(Reason::ClaimMissing)
    );

    let required = Bench::new(|rules| rules.required_claims = vec!["tenant".into()]);
    assert_eq!(required.reason(&header(), &claims()), Some(Reason::ClaimMissing));
    assert_eq!(required.reason(&header(), &with(claims(), &json!({ "tenant": "a" }))), None);

    let profile = Bench::new(|rules| rules.profile = Some(Profile::Rfc9068));
    let full = with(claims(), &json!({ "client_id": "c", "jti": "j" }));
    assert_eq!(profile.reason(&header(), &full), None);
    assert_eq!(profile.reason(&with(header(), &json!({ "typ": "JWT" })), &full), Some(Reason::WrongType));
    assert_eq!(profile.reason(&header(), &claims()), Some(Reason::ClaimMissing));

    let waived = Bench::new(|rules| rules.audiences = Audiences::InsecureAny);
    assert_eq!(waived.reason(&header(), &with(claims(), &json!({ "aud": null }))), None);
    assert_eq!(waived.reason(&header(), &with(claims(), &json!({ "aud": 1 }))), Some(Reason::ClaimInvalid));
}

#[test]
fn the_first_reason_in_order_is_the_one_given() {
    let bench = Bench::new(|_| {});
    let expired_for_others = with(claims(), &json!({ "exp": 1, "aud": "x", "iss": "https://other" }));
    let wrong_all_over = with(header(), &json!({ "alg": "none", "typ": "x", "kid": "k2" }));
    assert_eq!(bench.reason(&wrong_all_over, &expired_for_others), Some(Reason::AlgorithmNotAllowed));
    let from_type = with(header(), &json!({ "typ": "x", "kid": "k2" }));
    assert_eq!(bench.reason(&from_type, &expired_for_others), Some(Reason::WrongType));
    assert_eq!(bench.reason(&header(), &expired_for_others), Some(Reason::IssuerNotTrusted));
    let expired_for_another = with(claims(), &json!({ "exp": 1, "aud": "x" }));
    assert_eq!(bench.reason(&header(), &expired_for_another), Some(Reason::AudienceMismatch));
    let unknown_key = with(header(), &json!({ "kid": "k2" }));
    assert_eq!(bench.reason(&unknown_key, &with(claims(), &json!({ "exp": 1 }))), Some(Reason::Expired));
}

#[test]
fn a_key_that_is_not_there_is_looked_for_once_and_then_blamed_on_whom_it_concerns() {
    let bench = Bench::new(|_| {});
    let token = bench.token(&with(header(), &json!({ "kid": "k2" })), &claims());
    let token = BearerToken::new(&token).unwrap();
    let ask =
        |looked_again| bench.verifier.verify(token, Inputs { looked_again, ..bench.inputs() }, &mut FailFast);
    assert!(matches!(ask(LookedAgain::NotYet), Verdict::Needs(Need::Keys(..))));
    let reason = |verdict| match verdict {
        Verdict::Refused(rejection) => rejection.reason(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(ask(LookedAgain::Refreshed)), Reason::UnknownKey);
    assert_eq!(reason(ask(LookedAgain::Failed)), Reason::KeysUnreachable);
    let much_later = Inputs { monotonic: Monotonic(Duration::from_secs(25 * 3600)), ..bench.inputs() };
    assert_eq!(reason(bench.verifier.verify(token, much_later, &mut FailFast)), Reason::KeysExpired);
}

/// A provider that names no keys rotates all the same: to another key, or to one of another type.
#[test]
fn without_a_kid_a_key_that_does_not_fit_is_looked_for_once_and_then_blamed_on_whom_it_concerns() {
    let bench = Bench::new(|_| {});
    let token = bench.token(&with(header(), &json!({ "kid": null })), &claims());
    let token = BearerToken::new(&token).unwrap();
    let reason = |looked_again| match bench.verifier.verify(
        token,
        Inputs { looked_again, ..bench.inputs() },
        &mut FailFast,
    ) {
        Verdict::Refused(rejection) => Some(rejection.reason()),
        Verdict::Needs(Need::Keys(_, None)) => None,
        other => panic!("{other:?}"),
    };
    let other = Signer::p256();
    let sets = [
        (key_set(&[other.jwk("k2")]), Reason::SignatureMismatch),
        (key_set(&[Signer::rsa().jwk("k2")]), Reason::UnknownKey),
        (key_set(&[other.jwk("k2"), bench.signer.jwk("k1")]), Reason::UnknownKey),
    ];
    for (set, blamed) in sets {
        bench.feed.publish(set);
        assert_eq!(reason(LookedAgain::NotYet), None, "{blamed:?}");
        assert_eq!(reason(LookedAgain::Refreshed), Some(blamed));
        assert_eq!(reason(LookedAgain::Failed), Some(Reason::KeysUnreachable), "{blamed:?}");
    }
    bench.feed.publish(key_set(&[other.jwk("k1")]));
    let named = bench.token(&header(), &claims());
    for looked_again in [LookedAgain::NotYet, LookedAgain::Failed] {
        let inputs = Inputs { looked_again, ..bench.inputs() };
        let verdict = bench.verifier.verify(BearerToken::new(&named).unwrap(), inputs, &mut FailFast);
        let Verdict::Refused(rejection) = verdict else { panic!("{verdict:?}") };
        assert_eq!(rejection.reason(), Reason::SignatureMismatch, "the key that it names is at hand");
    }
}

#[test]
fn the_issuers_word_on_a_token_holds_no_longer_than_the_token() {
    let (port, _asks) = Introspector::new(1, Duration::from_secs(1));
    let bench = Bench::asking(
        |_| {},
        Some(Introspection { port, tokens: IntrospectedTokens::All, insecure_any_kind: true }),
    );
    let jwt = bench.token(&header(), &claims());
    let good_until = |seconds| Monotonic(Duration::from_secs(seconds));
    // The clocks: NOW is 1000 seconds after the process began.
    for (token, left, cache, expected) in [
        (jwt.as_str(), 300, 60, 1060),
        (jwt.as_str(), 300, 3600, 1300),
        (jwt.as_str(), -5, 3600, 1000),
        ("opaque", 300, 60, 1060),
        ("opaque", 300, 3600, 1300),
        ("opaque", -5, 3600, 1000),
    ] {
        let now = UnixSeconds(NOW + 300 - left);
        let claims = json!({ "active": true, "aud": "orders-api", "exp": NOW + 300, "sub": "u1" });
        let claims = claims.as_object().unwrap().clone();
        let answer = Answer::Active(Arc::new(ActiveToken { claims, good_until: good_until(1000 + cache) }));
        let inputs =
            Inputs { now, monotonic: good_until(1000), introspected: Some(&answer), ..bench.inputs() };
        let verdict = bench.verifier.verify(BearerToken::new(token).unwrap(), inputs, &mut FailFast);
        let Verdict::Verified(verified) = verdict else { panic!("{verdict:?}") };
        assert_eq!(verified.confirmed_until(), Some(good_until(expected)), "{token} {left} {cache}");
        assert_eq!(bench.verifier.still_good(&verified, inputs), expected > 1000, "{token} {left} {cache}");
    }
}

#[test]
fn a_cached_verdict_ends_with_time_trust_and_key() {
    let bench = Bench::new(|_| {});
    let token = bench.verdict(&bench.token(&header(), &claims())).unwrap();
    let at = |now| Inputs { now: UnixSeconds(now), ..bench.inputs() };
    assert!(bench.verifier.still_good(&token, at(NOW)));
    assert!(bench.verifier.still_good(&token, at(NOW + 300 + LEEWAY - 1)));
    assert!(!bench.verifier.still_good(&token, at(NOW + 300 + LEEWAY)));
    assert!(!bench.verifier.still_good(&token, at(NOW - 10 - LEEWAY - 1)), "a clock that was set back");
    let nobody = IssuerSet::default();
    assert!(!bench.verifier.still_good(&token, Inputs { trusted: &nobody, ..bench.inputs() }));
    let reconfigured = Bench::new(|_| {});
    assert!(!reconfigured.verifier.still_good(&token, bench.inputs()), "another issuer of the same name");

    let other = Signer::p256();
    bench.feed.publish(key_set(&[bench.signer.jwk("k1"), other.jwk("k2")]));
    assert!(bench.verifier.still_good(&token, bench.inputs()), "another key came, ours is still there");
    bench.feed.publish(key_set(&[other.jwk("k1")]));
    assert!(!bench.verifier.still_good(&token, bench.inputs()), "another key under the same name");
}

#[test]
fn running_to_the_end_finds_all_that_is_wrong() {
    let bench = Bench::new(|_| {});
    let token = bench.token(
        &with(header(), &json!({ "typ": "x" })),
        &with(claims(), &json!({ "aud": "y", "exp": 5, "sub": 1 })),
    );
    let mut all = CollectAll::default();
    let verdict = bench.verifier.verify(BearerToken::new(&token).unwrap(), bench.inputs(), &mut all);
    let failed: Vec<_> = all
        .findings
        .iter()
        .filter(|finding| finding.failure.is_some())
        .map(|finding| finding.check)
        .collect();
    assert_eq!(failed, [Check::Type, Check::Audience, Check::Time, Check::Claims]);
    assert!(
        all.findings.iter().any(|finding| finding.check == Check::Signature && finding.failure.is_none())
    );
    assert!(matches!(verdict, Verdict::Refused(rejection) if rejection.reason() == Reason::WrongType));
}

proptest! {
    /// Whatever is done to a good token, it is refused; and both ways to run the checks say the same.
    #[test]
    fn a_changed_token_is_never_verified(position in 0_usize..400, byte in any::<u8>(), cut in 0_usize..400) {
        let bench = Bench::new(|_| {});
        let good = bench.token(&header(), &claims());
        let mut bytes = good.clone().into_bytes();
        let place = position % bytes.len();
        bytes[place] = byte;
        bytes.truncate(bytes.len() - cut % 3);
        let Ok(changed) = String::from_utf8(bytes) else { return Ok(()) };
        prop_assume!(changed != good);
        let Some(token) = BearerToken::new(&changed) else { return Ok(()) };
        let reason = |verdict| match verdict {
            Verdict::Refused(rejection) => Some(rejection.reason()),
            _ => None,
        };
        let fast = reason(bench.verifier.verify(token, bench.inputs(), &mut FailFast));
        let full = reason(bench.verifier.verify(token, bench.inputs(), &mut CollectAll::default()));
        prop_assert!(fast.is_some());
        prop_assert_eq!(fast, full);
    }

    #[test]
    fn no_bytes_make_the_verifier_panic(text in "[A-Za-z0-9_.-]{0,200}|[ey.J0-9a-zA-Z_-]{1,50}\\.[e-zA-Z0-9]{0,80}\\.[A-Za-z]{0,90}") {
        let bench = Bench::new(|_| {});
        if let Some(token) = BearerToken::new(&text) {
            let verdict = bench.verifier.verify(token, bench.inputs(), &mut FailFast);
            prop_assert!(matches!(verdict, Verdict::Refused(_)));
        }
    }
}
