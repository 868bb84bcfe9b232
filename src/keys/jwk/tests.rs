use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::keys::testing::{Signer, jwks};

fn parse(bytes: &[u8]) -> Result<ParsedSet, JwksError> {
    parse_jwks(bytes, &Algorithm::ALL, JwksLimits::default())
}

/// A set of one good key and `raw`; what became of `raw`.
fn fate_of(raw: &str) -> Result<(), Unusable> {
    let good = Signer::p256().jwk("good").to_string();
    let set = parse(format!(r#"{{"keys":[{good},{raw}]}}"#).as_bytes()).unwrap();
    assert_eq!(set.keys[0].kid(), Some("good"), "a bad neighbour must not harm");
    match set.skipped.as_slice() {
        [] => Ok(()),
        [skipped] => Err(skipped.why.clone()),
        more => panic!("{more:?}"),
    }
}

fn with(mut jwk: Value, member: &str, value: Value) -> String {
    jwk[member] = value;
    jwk.to_string()
}

fn without(mut jwk: Value, member: &str) -> String {
    jwk.as_object_mut().unwrap().remove(member);
    jwk.to_string()
}

#[test]
fn keys_of_all_kinds_are_read_with_their_algorithms() {
    let signers = Signer::one_of_each();
    let set = parse(&jwks(&signers.each_ref().map(|signer| signer.jwk("k")).map(|mut jwk| {
        jwk["kid"] = json!(format!("{}-{}", jwk["kty"], jwk["crv"]));
        jwk
    })))
    .unwrap();
    assert_eq!(set.keys.len(), 5);
    assert!(set.skipped.is_empty() && set.leaked.is_empty());
    for (key, signer) in set.keys.iter().zip(&signers) {
        for &algorithm in key.algorithms() {
            assert!(key.verify(algorithm, b"x", &signer.sign(algorithm, b"x")), "{algorithm}");
        }
    }
}

#[test]
fn one_unusable_key_is_skipped_and_named() {
    let (rsa, ec, ed) = (Signer::rsa().jwk("r"), Signer::p256().jwk("e"), Signer::ed25519().jwk("o"));
    let long = "A".repeat(100);
    let cases = [
        ("null".to_owned(), Unusable::NotAnObject),
        ("[1]".to_owned(), Unusable::NotAnObject),
        ("\"key\"".to_owned(), Unusable::NotAnObject),
        ("{}".to_owned(), Unusable::NotAString("kty")),
        (r#"{"kty":"EC","kty":"EC"}"#.to_owned(), Unusable::DuplicateMember("kty".to_owned())),
        (r#"{"kty":"RSA","foo":1,"foo":1}"#.to_owned(), Unusable::DuplicateMember("foo".to_owned())),
        (r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(), Unusable::Symmetric),
        (r#"{"kty":"AKP","pub":"AA"}"#.to_owned(), Unusable::Type("\"AKP\"".to_owned())),
        (with(rsa.clone(), "kty", json!(7)), Unusable::NotAString("kty")),
        (with(rsa.clone(), "kid", json!(7)), Unusable::NotAString("kid")),
        (with(rsa.clone(), "kid", json!(null)), Unusable::NotAString("kid")),
        (with(rsa.clone(), "kid", json!("k".repeat(513))), Unusable::KidTooLong),
        (with(rsa.clone(), "use", json!("enc")), Unusable::NotForSignatures),
        (with(rsa.clone(), "use", json!("SIG")), Unusable::NotForSignatures),
        (with(rsa.clone(), "use", json!(["sig"])), Unusable::NotAString("use")),
        (with(rsa.clone(), "key_ops", json!(["sign"])), Unusable::NotForVerification),
        (with(rsa.clone(), "key_ops", json!([])), Unusable::NotForVerification),
        (with(rsa.clone(), "key_ops", json!("verify")), Unusable::KeyOperationsNotAnArray),
        (with(rsa.clone(), "alg", json!("HS256")), Unusable::Algorithm("\"HS256\"".to_owned())),
        (with(rsa.clone(), "alg", json!("none")), Unusable::Algorithm("\"none\"".to_owned())),
        (with(rsa.clone(), "alg", json!("RSA-OAEP")), Unusable::Algorithm("\"RSA-OAEP\"".to_owned())),
        (with(rsa.clone(), "alg", json!(["RS256"])), Unusable::NotAString("alg")),
        (with(rsa.clone(), "alg", json!("ES256")), Unusable::AlgorithmDoesNotFit),
        (with(ec.clone(), "alg", json!("ES384")), Unusable::AlgorithmDoesNotFit),
        (with(rsa.clone(), "n", json!("AQAB")), Unusable::ModulusTooSmall { bits: 17 }),
        (with(rsa.clone(), "e", json!("Aw")), Unusable::WeakExponent),
        (with(rsa.clone(), "e", json!("AQAB=")), Unusable::NotBase64("e")),
        (with(rsa.clone(), "e", json!("AQ+B")), Unusable::NotBase64("e")),
        (with(rsa.clone(), "e", json!(65537)), Unusable::NotAString("e")),
        (without(rsa.clone(), "n"), Unusable::NotAString("n")),
        (with(ec.clone(), "crv", json!("secp256k1")), Unusable::Curve("\"secp256k1\"".to_owned())),
        (with(ec.clone(), "crv", json!("Ed25519")), Unusable::Curve("\"Ed25519\"".to_owned())),
        (
            with(ec.clone(), "crv", json!("P-384")),
            Unusable::CoordinateLength { name: "x", actual: 32, expected: 48 },
        ),
        (
            with(ec.clone(), "x", json!("AA")),
            Unusable::CoordinateLength { name: "x", actual: 1, expected: 32 },
        ),
        (with(ec.clone(), "y", ec["x"].clone()), Unusable::NotOnCurve),
        (without(ec.clone(), "y"), Unusable::NotAString("y")),
        (with(ed.clone(), "crv", json!("X25519")), Unusable::Curve("\"X25519\"".to_owned())),
        (with(ed.clone(), "crv", json!("P-256")), Unusable::Curve("\"P-256\"".to_owned())),
        (
            with(ed.clone(), "x", json!("AA")),
            Unusable::CoordinateLength { name: "x", actual: 1, expected: 32 },
        ),
        (with(ed.clone(), "x", json!("A".repeat(43))), Unusable::WeakPoint),
        (with(ed.clone(), "alg", json!(long)), Unusable::Algorithm(format!("\"{}\"...", "A".repeat(64)))),
    ];
    for (raw, why) in cases {
        assert_eq!(fate_of(&raw), Err(why), "{raw}");
    }
}

#[test]
fn harmless_members_are_no_obstacle() {
    let rsa = Signer::rsa().jwk("r");
    for raw in [
        with(rsa.clone(), "x5c", json!(7)),
        with(rsa.clone(), "x5t#S256", json!("abc")),
        with(rsa.clone(), "key_ops", json!(["verify", "made-up"])),
        with(rsa.clone(), "use", json!("sig")),
        with(rsa.clone(), "status", json!({ "a": [1, { "a": 1 }] })),
        without(rsa, "kid"),
    ] {
        assert_eq!(fate_of(&raw), Ok(()), "{raw}");
    }
}

#[test]
fn a_key_with_alg_serves_that_algorithm_only() {
    let set =
        parse(&jwks(&[serde_json::from_str(&with(Signer::rsa().jwk("r"), "alg", json!("PS384"))).unwrap()]));
    assert_eq!(set.unwrap().keys[0].algorithms(), [Algorithm::Ps384]);
}

#[test]
fn keys_are_narrowed_to_the_accepted_algorithms() {
    let set = jwks(&[Signer::rsa().jwk("r"), Signer::p256().jwk("e"), Signer::ed25519().jwk("o")]);
    let set = parse_jwks(&set, &[Algorithm::Rs256, Algorithm::Ed25519], JwksLimits::default()).unwrap();
    assert_eq!(set.keys[0].algorithms(), [Algorithm::Rs256]);
    assert_eq!(set.keys[1].algorithms(), [Algorithm::EdDsa, Algorithm::Ed25519]);
    assert_eq!(set.skipped, [SkippedKey { kid: Some("e".into()), why: Unusable::AlgorithmNotAccepted }]);
}

#[test]
fn a_published_private_key_is_used_by_its_public_half_and_reported() {
    for member in ["d", "p", "oth"] {
        let raw = with(Signer::p256().jwk("leak"), member, json!("c2VjcmV0"));
        let set = parse(format!(r#"{{"keys":[{raw}]}}"#).as_bytes()).unwrap();
        assert_eq!(set.keys.len(), 1);
        assert_eq!(set.leaked, [Some("leak".into())]);
        assert!(!format!("{set:?}").contains("c2VjcmV0"));
    }
}

#[test]
fn keys_that_a_token_could_confuse_are_both_left_out() {
    let (one, two, rsa) = (Signer::p256().jwk("k"), Signer::p256().jwk("k"), Signer::rsa().jwk("k"));
    let set = parse(&jwks(&[one.clone(), rsa.clone(), two])).unwrap();
    assert_eq!(set.keys.len(), 1, "the RSA key shares the name but no algorithm");
    assert_eq!(set.keys[0].algorithms().len(), 6);
    assert_eq!(set.skipped.len(), 2);
    assert!(set.skipped.iter().all(|skipped| skipped.why == Unusable::AmbiguousKid));

    let same = parse(&jwks(&[one.clone(), one])).unwrap();
    assert!(same.skipped.is_empty(), "the same key twice is no ambiguity");

    let nameless: Vec<Value> = [Signer::p256().jwk(""), Signer::p256().jwk("")]
        .into_iter()
        .map(|jwk| serde_json::from_str(&without(jwk, "kid")).unwrap())
        .collect();
    assert_eq!(parse(&jwks(&nameless)).unwrap().keys.len(), 2, "without kid the set decides by count");
}

#[test]
fn what_is_no_set_is_refused_as_a_whole() {
    type Expected = fn(&JwksError) -> bool;
    let cases: [(&[u8], Expected); 12] = [
        (b"", |error| matches!(error, JwksError::NotJson { .. })),
        (b"<html></html>", |error| matches!(error, JwksError::NotJson { .. })),
        (b"{\"keys\":[", |error| matches!(error, JwksError::NotJson { .. })),
        (b"{\"keys\":[]} x", |error| matches!(error, JwksError::NotJson { .. })),
        (b"\xff\xfe", |error| matches!(error, JwksError::NotJson { .. })),
        (b"null", |error| matches!(error, JwksError::NotASet { .. })),
        (b"{}", |error| matches!(error, JwksError::NotASet { .. })),
        (b"{\"keys\":{}}", |error| matches!(error, JwksError::NotASet { .. })),
        (b"{\"keys\":null}", |error| matches!(error, JwksError::NotASet { .. })),
        (b"{\"keys\":[],\"keys\":[]}", |error| matches!(error, JwksError::NotASet { .. })),
        (b"{\"keys\":[]}", |error| matches!(error, JwksError::Empty)),
        (b"{\"keys\":[{}]}", |error| matches!(error, JwksError::NothingUsable { .. })),
    ];
    for (bytes, expected) in cases {
        let error = parse(bytes).unwrap_err();
        assert!(expected(&error), "{}: {error:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn size_and_count_are_bounded() {
    let limits = JwksLimits { bytes: 2000, keys: 2 };
    let parse = |bytes: &[u8]| parse_jwks(bytes, &Algorithm::ALL, limits);
    let three = jwks(&[json!({}), json!({}), json!({})]);
    assert_eq!(parse(&three).unwrap_err(), JwksError::TooManyKeys { actual: 3, limit: 2 });
    assert_eq!(parse(&[b' '; 2001]).unwrap_err(), JwksError::TooLarge { actual: 2001, limit: 2000 });
}

#[test]
fn deep_nesting_and_long_names_stay_harmless() {
    let deep = format!(r#"{{"keys":[{{"kty":{}1{}}}]}}"#, "[".repeat(50_000), "]".repeat(50_000));
    assert!(parse(deep.as_bytes()).is_err());
    let kid = "\u{1b}[31m\n".repeat(80);
    let error = parse(&jwks(&[json!({ "kty": "oct", "kid": kid })])).unwrap_err().to_string();
    assert!(error.len() < 700 && !error.contains('\u{1b}') && !error.contains('\n'), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn mutated_sets_never_panic_and_never_yield_an_empty_set(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<proptest::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = jwks(&[Signer::p256().jwk("e"), Signer::ed25519().jwk("o"), Signer::rsa().jwk("r")]);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(set) = parse(&bytes) {
            prop_assert!(!set.keys.is_empty());
            prop_assert!(set.keys.iter().all(|key| !key.algorithms().is_empty()));
        }
    }

    #[test]
    fn any_member_values_never_panic(
        kty in prop_oneof!["RSA", "EC", "OKP", "oct", ".*"], crv in prop_oneof!["P-256", "P-521", "Ed25519", ".*"],
        a in "[A-Za-z0-9_-]{0,90}", b in "[A-Za-z0-9_-]{0,90}", alg in prop_oneof!["RS256", "ES512", "EdDSA", ".*"],
    ) {
        let key = json!({ "kty": kty, "crv": crv, "x": a, "y": b, "n": a, "e": b, "alg": alg });
        let _ = parse(&jwks(&[key]));
    }
}
