//! What must hold for whatever bytes come: no panic, no endless work, and never a token verified that its issuer did
//! not sign. Each function takes one input of one kind; a fuzzer and the ordinary tests both feed them.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use valgate::clock::{Clock, Monotonic, UnixSeconds};
use valgate::config;
use valgate::events::{EventRules, LogoutToken, SecurityEvent, SubjectMapping};
use valgate::feeds::revocation::{apply_document, parse_change, parse_revocation, revocation_line};
use valgate::gateway::token_from_header;
use valgate::keys::{Algorithm, JwksLimits, KeyFeedHandle, KeySet, KeySource, KeySourceSettings, parse_jwks};
use valgate::listener::{ProxyHeader, parse_proxy_header};
use valgate::rejection::Rejection;
use valgate::revocation::{FactHasher, FactKind, Index, Revocation};
use valgate::token::{
    Audiences, BearerToken, Binding, Claims, CollectAll, Compact, Examiner, Expectations, FailFast, Inputs,
    Issuer, IssuerId, Issuers, LookedAgain, Verdict, Verifier, json_object,
};

/// A token. Those of the seed's header and claims may verify, any others may not; both ways of examining agree; what
/// is said about a token does not quote it.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(jws) = Compact::parse(text) {
        assert!(!jws.signature.is_empty() || Algorithm::from_name(&jws.header.algorithm).is_none());
        assert_eq!(text.split('.').count(), 3);
        let _ = jws.claims().map(Claims::new).map(|claims| claims.check_types());
    }
    let Some(token) = BearerToken::new(text) else { return };
    assert!(text.len() <= 23 || !format!("{token:?}").contains(text), "Debug shows the token");
    let mut findings = CollectAll::default();
    let (fast, full) = (judge(token, &mut FailFast), judge(token, &mut findings));
    let refusal = |verdict: &Verdict| match verdict {
        Verdict::Refused(rejection) => Some(rejection.reason()),
        Verdict::Verified(_) | Verdict::Needs(_) => None,
    };
    assert_eq!(refusal(&fast), refusal(&full), "serving and explaining disagree");
    let first = findings.findings.iter().find_map(|finding| finding.failure.as_ref());
    assert_eq!(first.map(Rejection::reason), refusal(&full));
    if let Verdict::Verified(_) = fast {
        let signed = text.rsplit_once('.').map(|(input, _)| input);
        assert_eq!(signed, Some(SIGNED), "a forged token was verified");
    }
}

/// Whether the verifier that [`token`] asks accepts this one.
pub fn is_verified(text: &str) -> bool {
    BearerToken::new(text).is_some_and(|token| matches!(judge(token, &mut FailFast), Verdict::Verified(_)))
}

/// The values of Authorization headers, one a line.
pub fn authorization(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(4) {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(AUTHORIZATION, value);
    }
    let Ok(Some(text)) = token_from_header(&headers) else { return };
    assert_eq!(headers.len(), 1, "one of several credentials was chosen");
    assert!(!text.is_empty() && !text.starts_with(' '));
    let whole = headers[AUTHORIZATION].to_str().expect("a token was read from it");
    let scheme = whole.strip_suffix(text).expect("the token is the end of the value");
    assert!(scheme.trim_end_matches(' ').eq_ignore_ascii_case("bearer"));
    if let Some(token) = BearerToken::new(text) {
        assert_eq!(token.expose(), text);
        assert!(!text.contains([' ', ',', ';', '"', '\t', '\\']));
    }
}

/// A JWK set. It has keys or is an error; each key is for accepted algorithms only and believes no signature of
/// nothing.
pub fn jwks(data: &[u8]) {
    let limits = JwksLimits::default();
    let accepted = [Algorithm::Rs256, Algorithm::Es256, Algorithm::Ed25519];
    let Ok(set) = parse_jwks(data, &accepted, limits) else { return };
    assert!(!set.keys.is_empty() && set.keys.len() + set.skipped.len() <= limits.keys);
    for key in &set.keys {
        for algorithm in key.algorithms() {
            assert!(
                accepted.iter().any(|accepted| accepted.same_as(*algorithm)),
                "{algorithm} was not accepted"
            );
            assert!(!key.verify(*algorithm, b"input", &[]) && !key.verify(*algorithm, b"input", &[0; 64]));
        }
    }
    let keys = KeySet::new(set.keys);
    for key in keys.iter().filter(|key| key.kid().is_some()) {
        for algorithm in key.algorithms() {
            let found = keys.select(key.kid(), *algorithm).expect("a key is found by its own name");
            assert_eq!(found.thumbprint(), key.thumbprint(), "a name means two keys");
        }
    }
}

/// A revocation document, taken over by an index that knows something already. It is an error and changes nothing, or
/// all of it is in force; what is said about it does not quote it.
pub fn feed(data: &[u8]) {
    let index =
        Index::new(FactHasher::with_key([7; 16]), vec!["joe".to_owned()], Duration::ZERO, MAX_ENTRIES);
    let before = apply_document(BEFORE, &index);
    assert_eq!((before, index.len()), (Ok(1), 1));
    let generation = index.generation();
    match apply_document(data, &index) {
        Ok(usable) => assert!(index.len() <= usable + 1 && usable <= MAX_ENTRIES.min(data.len())),
        Err(why) => {
            assert_eq!((index.len(), index.generation()), (1, generation), "a broken document had an effect");
            assert!(why.len() < 400, "an error that quotes the document: {why}");
        }
    }
}

/// The claims of a security event or logout token whose signature is good. It breaks a rule, which is said without
/// quoting it; or what it revokes is its issuer's, ends, and can be written to an engine.
pub fn set(data: &[u8]) {
    let Ok(members) = json_object(data) else { return };
    let claims = Claims::new(members);
    let rules = EventRules {
        issuer: "joe".to_owned(),
        audiences: vec!["api".to_owned()],
        leeway: Duration::from_secs(30),
        keep: Duration::from_secs(3600),
        subjects: SubjectMapping { email: Some(FactKind::Sub), ..SubjectMapping::default() },
    };
    let now = UnixSeconds(1_790_000_000);
    let event = SecurityEvent::read(&claims, &rules, now).map(|event| event.revocations);
    let logout = LogoutToken::read(&claims, &rules, now).map(|logout| vec![logout.revocation]);
    for read in [event, logout] {
        match read {
            Ok(revocations) => {
                assert!(revocations.len() <= data.len());
                for revocation in revocations {
                    assert_eq!(revocation.entry.issuer.as_deref(), Some("joe"), "another issuer's tokens");
                    assert!(revocation.entry.expires.is_some_and(|end| end <= now.plus(2 * rules.keep)));
                    comes_back(&revocation);
                }
            }
            Err(fault) => assert!(fault.description.len() < 400, "an error that quotes: {fault:?}"),
        }
    }
}

/// A line of a feed: of a file of entries, of a feed server's log, of a Valkey stream. What it revokes comes back from
/// the line that is written of it.
pub fn feed_line(data: &[u8]) {
    if let Err(why) = parse_change(data) {
        assert!(why.len() < 200);
        assert!(parse_revocation(data).is_err(), "what is no change revokes");
    }
    if let Ok(revocation) = parse_revocation(data) {
        comes_back(&revocation);
    }
}

fn comes_back(revocation: &Revocation) {
    // An id can be longer than an engine takes, which the writer says.
    if let Ok(read) = parse_revocation(revocation_line(revocation).as_bytes()) {
        assert_eq!(read.entry, revocation.entry, "written and read again");
    }
}

/// The start of a connection behind a load balancer. A header ends where it says, whatever follows; any part of it is
/// incomplete and asks for no byte beyond its end.
pub fn proxy_header(data: &[u8]) {
    let Ok(ProxyHeader::Complete { length, client }) = parse_proxy_header(data) else { return };
    let header = data.get(..length).expect("a header ends within what was read");
    assert_eq!(parse_proxy_header(header), Ok(ProxyHeader::Complete { length, client }));
    for part in 0..length {
        match parse_proxy_header(&header[..part]) {
            Ok(ProxyHeader::Incomplete(more)) => assert!(more > 0 && part + more <= length),
            other => panic!("{part} of {length} bytes: {other:?}"),
        }
    }
}

/// A configuration file. It is good, or has at least one mistake, each with a place in the file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A file that the configuration names is the operator's choice, not input.
    if text.contains("file:") {
        return;
    }
    let environment = |name: &str| (name == "SET").then(|| "value".to_owned());
    let Err(diagnostics) = config::parse(text, "valgate.yaml", Path::new("."), &environment) else { return };
    assert!(!diagnostics.list.is_empty() && !diagnostics.to_string().is_empty());
    for mistake in &diagnostics.list {
        assert!(mistake.line <= text.lines().count() + 1, "a mistake beyond the end: {mistake:?}");
        assert!(!mistake.message.is_empty());
    }
}

/// Few, so that a document can be too large.
const MAX_ENTRIES: usize = 8;
const BEFORE: &[u8] =
    br#"{"version":1,"kind":"snapshot","epoch":"e","cursor":"1","entries":[{"jti":"a","exp":4102444800}]}"#;

/// Header and claims of the one token that is signed: RFC 7515 appendix A.3.
const SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9\
    pc19yb290Ijp0cnVlfQ";
const KEY: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

fn judge<E: Examiner>(token: BearerToken<'_>, examiner: &mut E) -> Verdict {
    static VERIFIER: LazyLock<(Verifier, KeyFeedHandle)> = LazyLock::new(verifier);
    let inputs = Inputs {
        trusted: &[IssuerId(0)].into_iter().collect(),
        // A minute before the token expires.
        now: UnixSeconds(1_300_819_320),
        monotonic: Monotonic(Duration::ZERO),
        looked_again: LookedAgain::Refreshed,
        introspected: None,
    };
    VERIFIER.0.verify(token, inputs, examiner)
}

/// A verifier that knows the issuer of that token by its key, and the feed that must outlive it.
fn verifier() -> (Verifier, KeyFeedHandle) {
    let (clock, _) = Clock::manual(UnixSeconds(0));
    let (keys, feed) = KeySource::new(clock, KeySourceSettings::default());
    let set = parse_jwks(KEY.as_bytes(), &Algorithm::ALL, JwksLimits::default()).expect("the key is good");
    feed.publish(KeySet::new(set.keys));
    let expectations = Expectations {
        audiences: Audiences::InsecureAny,
        algorithms: vec![Algorithm::Es256],
        leeway: Duration::from_secs(30),
        max_lifetime: None,
        required_claims: Vec::new(),
        profile: None,
        binding: Binding::default(),
    };
    let issuer = Issuer {
        id: IssuerId(0),
        name: "joe".into(),
        url: "joe".into(),
        expectations,
        keys,
        introspection: None,
    };
    (Verifier::new(Issuers::new(vec![Arc::new(issuer)])), feed)
}
