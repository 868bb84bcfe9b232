//! What must hold for whatever bytes come: no panic, no endless work, and never a token verified that its issuer did
//! not sign. Each function takes one input of one kind; a fuzzer and the ordinary tests both feed them.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use valgate::clock::{Clock, Monotonic, UnixSeconds};
use valgate::config;
use valgate::events::{EventRules, LogoutToken, SecurityEvent, SubjectMapping};
use valgate::feed_server::read_forged_log;
use valgate::feeds::revocation::{
    SignedSettings, apply_document, open_signed, parse_change, parse_revocation, read_forged_copy,
    revocation_line,
};
use valgate::feeds::status_list::parse_status_list;
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
    let Ok(Some(shown)) = token_from_header(&headers) else { return };
    assert_eq!(headers.len(), 1, "one of several credentials was chosen");
    let bytes = shown.expose();
    assert!(bytes.first().is_some_and(|first| *first != b' '));
    let whole = headers[AUTHORIZATION].as_bytes();
    let scheme = whole.strip_suffix(bytes).expect("the token is the end of the value");
    assert!(scheme.trim_ascii_end().eq_ignore_ascii_case(b"bearer"));
    if let Some(token) = shown.token() {
        assert_eq!(token.expose().as_bytes(), bytes);
        assert!(token.expose().is_ascii() && !token.expose().contains([' ', ',', ';', '"', '\t', '\\']));
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
/// quoting it; or what it revokes ends, and can be written to an engine.
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

/// The log of a feed server, of which somebody has made all checksums right.
pub fn feed_log(data: &[u8]) {
    match read_forged_log(data) {
        Ok(in_force) => assert!(in_force < data.split(|byte| *byte == b'\n').count()),
        Err(why) => assert!(why.len() < 400, "an error that quotes the log: {why}"),
    }
}

/// The copy of a feed in the state directory, of which somebody has made all checksums right: the length of the
/// snapshot's content, that content, and a batch of the journal. What it restores is no more than it has room for, and
/// no more than is there.
pub fn stored_copy(data: &[u8]) {
    let Some((length, content)) = data.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes(*length));
    let (snapshot, batch) = content.split_at(length.min(content.len()));
    let index =
        Index::new(FactHasher::with_key([7; 16]), vec!["joe".to_owned()], Duration::ZERO, MAX_ENTRIES);
    if let Err(why) = read_forged_copy(snapshot, batch, &index) {
        assert!(why.len() < 200, "an error that quotes the copy: {why}");
    }
    assert!(index.len() <= MAX_ENTRIES && index.len() * RECORD <= data.len());
}

/// The claims of a status list whose signature is good. It is no larger inflated than it may be, and says nothing of
/// tokens beyond its end.
pub fn status_list(data: &[u8]) {
    match parse_status_list(data, LIST, MAX_LIST, UnixSeconds(1_790_000_000)) {
        Ok(list) => {
            assert!(list.size() as u64 <= MAX_LIST);
            let beyond = list.size() as u64 * 8;
            assert!(list.get(beyond).is_none() && list.get(u64::MAX).is_none());
            assert_eq!(list.size() == 0, list.get(0).is_none());
        }
        Err(why) => assert!(why.len() < 400, "an error that quotes the list: {why}"),
    }
}

/// The answer of a signed feed. None but the one that was signed for this gateway is opened, and to what was signed.
pub fn signed_feed(data: &[u8]) {
    match opened(data) {
        Ok(document) => {
            let text = std::str::from_utf8(data).expect("what is no text is not signed").trim_ascii();
            assert_eq!(text.rsplit_once('.').map(|(input, _)| input), Some(SIGNED_FEED), "a forged answer");
            assert!(
                apply_document(
                    &document,
                    &Index::new(FactHasher::with_key([7; 16]), vec![], Duration::ZERO, 1)
                )
                .is_ok()
            );
        }
        Err(why) => assert!(why.len() < 400, "an error that quotes the answer: {why}"),
    }
}

/// Whether the judge that [`signed_feed`] asks opens this answer.
pub fn is_opened(data: &[u8]) -> bool {
    opened(data).is_ok()
}

fn opened(data: &[u8]) -> Result<Vec<u8>, String> {
    static KEYS: LazyLock<Arc<KeySource>> = LazyLock::new(|| {
        // The feed ends here, so nobody is asked for a key that is not known, and nobody waits.
        let (keys, feed) = KeySource::new(Clock::manual(UnixSeconds(0)).0, KeySourceSettings::default());
        let set =
            parse_jwks(FEED_KEY.as_bytes(), &Algorithm::ALL, JwksLimits::default()).expect("the key is good");
        feed.publish(KeySet::new(set.keys));
        keys
    });
    let settings = SignedSettings {
        keys: Arc::clone(&KEYS),
        algorithms: vec![Algorithm::EdDsa],
        issuer: "joe".to_owned(),
        audience: "fleet".to_owned(),
        max_age: Duration::from_secs(300),
        leeway: Duration::ZERO,
    };
    let (clock, _) = Clock::manual(UnixSeconds(1_790_000_010));
    let mut opening = std::pin::pin!(open_signed(data, settings, clock));
    match opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(opened) => opened,
        Poll::Pending => panic!("an answer that has to be waited for"),
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

/// A record of a stored copy.
const RECORD: usize = 24;
/// Small, so that a list can be too large.
const MAX_LIST: u64 = 1000;
const LIST: &str = "https://id.example.com/status/1";

/// Header and document of the one answer that is signed for this gateway; the private key is thrown away.
const SIGNED_FEED: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6InZhbGdhdGUtZmVlZCtqd3QiLCJraWQiOiJmZWVkIn0.eyJ2ZXJzaW9uIjoxLCJraW5kIjoi\
    c25hcHNob3QiLCJlcG9jaCI6ImUiLCJjdXJzb3IiOiIxIiwiaXNzIjoiam9lIiwiYXVkIjoiZmxlZXQiLCJpYXQiOjE3OTAwMDAw\
    MDAsInNlcmlhbCI6NywiZW50cmllcyI6W3sianRpIjoiYSIsImV4cCI6NDEwMjQ0NDgwMH1dfQ";
const FEED_KEY: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"feed","x":"8H-enregiytWF6bOE3qTCM4GWMhKBLH57kdEKo26bkk"}]}"#;

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
