//! `valgate token inspect`: header and claims in words, with what is suspicious about them. Trusts nothing, asks nobody,
//! and never prints the signature, without which what is printed is no token.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Serialize;
use serde_json::{Map, Value};

use super::input::Source;
use super::{REFUSED, time};
use crate::cli::fail;
use crate::cli::style::Style;
use crate::clock::{Clock, UnixSeconds, in_words};
use crate::keys::Algorithm;
use crate::telemetry::access_log::acts_on_a_terminal;
use crate::token::{Claims, Compact, Fingerprint};

/// The command line of `valgate token inspect`.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// Time to judge at, such as 2026-01-31T12:00:00Z, instead of now
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<UnixSeconds>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Shows the token.
pub fn run(options: &Options) -> ExitCode {
    let token = match options.source.read() {
        Ok(token) => token,
        Err(error) => return fail(&error),
    };
    let inspection = Inspection::of(&token, options.at.unwrap_or_else(|| Clock::system().wall()));
    let text = if options.json {
        serde_json::to_string_pretty(&inspection).unwrap_or_default() + "\n"
    } else {
        inspection.text(Style::of_stdout())
    };
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    if inspection.header.is_some() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}

/// What a token says of itself.
#[derive(Debug, Serialize)]
struct Inspection {
    /// `None` if it cannot be decoded.
    header: Option<Value>,
    claims: Option<Value>,
    bytes: usize,
    /// As logs show it.
    fingerprint: String,
    warnings: Vec<Warning>,
    #[serde(skip)]
    now: UnixSeconds,
}

#[derive(Debug, Serialize)]
struct Warning {
    /// Stable, for programs.
    id: &'static str,
    text: String,
}

/// Tokens that live longer outlive the reason they were issued for.
const LONG_LIFE: i64 = 24 * 60 * 60;

/// Many servers take no larger header lines.
const LARGE: usize = 8 * 1024;

impl Inspection {
    fn of(token: &str, now: UnixSeconds) -> Self {
        let mut parts = token.split('.');
        let header = parts.next().and_then(decoded);
        let claims = header.as_ref().and_then(|_| decoded(parts.next()?));
        let mut warnings = Warnings(Vec::new());
        match &header {
            None => warnings.add("not_a_jwt", "It is not a JWT: an opaque token, or not a token at all."),
            Some(header) => warnings.on_header(token, header, claims.as_ref()),
        }
        if let Some(Value::Object(claims)) = &claims {
            warnings.on_claims(claims, now);
        }
        if token.len() > LARGE {
            let text = format!("It has {} bytes; many servers take no header line above 8 KiB.", token.len());
            warnings.add("large", text);
        }
        Self {
            header,
            claims,
            bytes: token.len(),
            fingerprint: Fingerprint::of(token.as_bytes()).to_string(),
            warnings: warnings.0,
            now,
        }
    }

    fn text(&self, style: Style) -> String {
        let mut out = String::new();
        for (title, members) in [("Header", &self.header), ("Claims", &self.claims)] {
            if let Some(Value::Object(members)) = members {
                let _ = writeln!(out, "{title}");
                let width = members.keys().map(|name| name.chars().count()).max().unwrap_or_default();
                for (name, value) in members {
                    let _ = writeln!(out, "  {:width$}  {}", printable(name), self.in_words(name, value));
                }
            }
        }
        let _ = writeln!(out, "Token\n  {} bytes, fingerprint {}", self.bytes, self.fingerprint);
        if !self.warnings.is_empty() {
            let _ = writeln!(out, "Warnings");
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "  {} {}", style.warning("!"), warning.text);
        }
        let note = "Nothing of this is verified, and the signature is not shown; see 'valgate token verify'.";
        let _ = writeln!(out, "{}", style.dim(note));
        out
    }

    fn in_words(&self, name: &str, value: &Value) -> String {
        let shown = match value {
            Value::String(text) => printable(text),
            value => printable(&value.to_string()),
        };
        if !matches!(name, "exp" | "nbf" | "iat" | "auth_time") {
            return shown;
        }
        let Some(at) = value.as_i64() else { return shown };
        let ahead = at.saturating_sub(self.now.0);
        let relative = match (name, ahead) {
            ("exp", ..=0) => format!("expired {} ago", in_words(-ahead)),
            (_, ..=0) => format!("{} ago", in_words(-ahead)),
            _ => format!("in {}", in_words(ahead)),
        };
        format!("{shown} = {} ({relative})", UnixSeconds(at))
    }
}

struct Warnings(Vec<Warning>);

impl Warnings {
    fn add(&mut self, id: &'static str, text: impl Into<String>) {
        self.0.push(Warning { id, text: text.into() });
    }

    fn on_header(&mut self, token: &str, header: &Value, claims: Option<&Value>) {
        let strict = Compact::parse(token).and_then(|compact| compact.claims());
        if let Err(why) = strict {
            self.add("malformed", format!("It would be refused as malformed: {why}."));
        }
        if claims.is_none() && token.split('.').count() == 5 {
            self.add("encrypted", "It is encrypted (JWE); only its recipient can read the claims.");
        }
        match header.get("alg").and_then(Value::as_str) {
            None => self.add("alg_missing", "It names no algorithm (alg)."),
            Some(alg) if alg.eq_ignore_ascii_case("none") => {
                self.add(
                    "alg_none",
                    "It is not signed (alg none): anyone could have made it. It is always refused.",
                );
            }
            Some(alg) if alg.starts_with("HS") => {
                let text = "It is signed with a shared secret (HMAC): who can verify could also forge. It is always refused.";
                self.add("alg_hmac", text);
            }
            Some(alg) if Algorithm::from_name(alg).is_none() => {
                self.add(
                    "alg_unknown",
                    format!("Its algorithm, {}, is not one that valgate has.", printable(alg)),
                );
            }
            Some(_) => {}
        }
        if header.get("kid").is_none() {
            self.add(
                "kid_missing",
                "It names no key (kid): accepted only if exactly one of the issuer's keys fits.",
            );
        }
        match header.get("typ").and_then(Value::as_str).map(str::to_ascii_lowercase) {
            None => self.add("typ_missing", "It does not say what it is (typ); RFC 9068 has at+jwt."),
            Some(typ) if !matches!(typ.trim_start_matches("application/"), "jwt" | "at+jwt") => {
                self.add(
                    "typ_other",
                    "Its type (typ) is not that of an access token. It is refused as wrong_type.",
                );
            }
            Some(_) => {}
        }
        if ["jwk", "jku", "x5c", "x5u"].iter().any(|name| header.get(name).is_some()) {
            self.add("own_key", "It brings or links a key of its own; valgate never looks at that.");
        }
    }

    fn on_claims(&mut self, members: &Map<String, Value>, now: UnixSeconds) {
        let claims = Claims::new(members.clone());
        if let Err(wrong) = claims.check_types() {
            self.add("claim_type", format!("Its {} is not {}.", wrong.claim, wrong.expected));
        }
        for (claim, why) in [
            ("iss", "nobody stands behind it"),
            ("aud", "it is for every API that trusts its issuer"),
            ("exp", "it would live for ever"),
            ("iat", "it cannot be spared when all tokens before a time are revoked"),
            ("jti", "it cannot be revoked by itself"),
        ] {
            if !claims.has(claim) {
                self.add("claim_missing", format!("It has no {claim}: {why}."));
            }
        }
        let time = |value: Result<Option<UnixSeconds>, _>| value.ok().flatten();
        let (expires, issued) = (time(claims.expires()), time(claims.issued_at()));
        match expires {
            Some(expires) if expires <= now => {
                self.add("expired", format!("It expired {} ago.", in_words(now.0.saturating_sub(expires.0))));
            }
            Some(expires) => {
                let life = expires.0.saturating_sub(issued.unwrap_or(now).0);
                if life > LONG_LIFE {
                    self.add(
                        "long_lived",
                        format!("It lives for {}; minutes to hours are usual.", in_words(life)),
                    );
                }
            }
            None => {}
        }
        if let Some(start) = time(claims.not_before()).filter(|start| *start > now) {
            self.add(
                "not_yet_valid",
                format!("It becomes valid in {}.", in_words(start.0.saturating_sub(now.0))),
            );
        }
        if let Some(issued) = issued.filter(|issued| *issued > now) {
            let text = format!(
                "It was issued {} in the future: clocks differ.",
                in_words(issued.0.saturating_sub(now.0))
            );
            self.add("issued_in_the_future", text);
        }
    }
}

/// A part as JSON, however sloppily it is written: the warnings say what a strict reader makes of it.
fn decoded(part: &str) -> Option<Value> {
    const SLOPPY: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let bytes = GeneralPurpose::new(&URL_SAFE, SLOPPY).decode(part).ok()?;
    serde_json::from_slice::<Map<String, Value>>(&bytes).ok().map(Value::Object)
}

/// A token's texts are a stranger's: none acts on the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|character| if acts_on_a_terminal(character) { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn inspected(header: &str, claims: &str) -> Inspection {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        Inspection::of(&format!("{}.{}.c2lnbmF0dXJl", part(header), part(claims)), NOW)
    }

    fn warnings(inspection: &Inspection) -> Vec<&str> {
        inspection.warnings.iter().map(|warning| warning.id).collect()
    }

    fn good_claims() -> Value {
        json!({ "iss": "https://a/", "aud": "b", "exp": NOW.0 + 300, "iat": NOW.0 - 60, "jti": "1" })
    }

    #[test]
    fn a_good_token_has_no_warnings_and_its_signature_is_not_shown() {
        let good = inspected(r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#, &good_claims().to_string());
        assert!(warnings(&good).is_empty(), "{:?}", good.warnings);
        let text = good.text(Style::PLAIN) + &serde_json::to_string(&good).unwrap();
        assert!(text.contains("(in 5 min)") && !text.contains("c2lnbmF0dXJl"), "{text}");
    }

    #[test]
    fn what_is_suspicious_is_named() {
        let header = r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#;
        let with = |claim: &str, value: Value| {
            let mut claims = good_claims();
            claims[claim] = value;
            claims.to_string()
        };
        for (header, claims, id) in [
            (r#"{"alg":"none","kid":"k","typ":"JWT"}"#, good_claims().to_string(), "alg_none"),
            (r#"{"alg":"HS256","kid":"k","typ":"JWT"}"#, good_claims().to_string(), "alg_hmac"),
            (r#"{"alg":"XX","kid":"k","typ":"JWT"}"#, good_claims().to_string(), "alg_unknown"),
            (r#"{"alg":"ES256","typ":"JWT"}"#, good_claims().to_string(), "kid_missing"),
            (r#"{"alg":"ES256","kid":"k"}"#, good_claims().to_string(), "typ_missing"),
            (r#"{"alg":"ES256","kid":"k","typ":"logout+jwt"}"#, good_claims().to_string(), "typ_other"),
            (r#"{"alg":"ES256","kid":"k","typ":"JWT","jku":"x"}"#, good_claims().to_string(), "own_key"),
            (header, with("exp", json!(NOW.0 - 1)), "expired"),
            (header, with("exp", json!(NOW.0 + 90_000)), "long_lived"),
            (header, with("nbf", json!(NOW.0 + 100)), "not_yet_valid"),
            (header, with("iat", json!(NOW.0 + 100)), "issued_in_the_future"),
            (header, with("sub", json!(7)), "claim_type"),
            (header, with("aud", json!(null)), "claim_missing"),
            (header, r#"{"iss":"a","iss":"b"}"#.to_owned(), "malformed"),
            (header, with("x", json!("y".repeat(9000))), "large"),
        ] {
            let inspection = inspected(header, &claims);
            assert!(warnings(&inspection).contains(&id), "{id}: {:?}", inspection.warnings);
        }
        assert_eq!(warnings(&Inspection::of("opaque", NOW)), ["not_a_jwt"]);
    }

    #[test]
    fn a_terminal_is_left_alone() {
        let claims = r#"{"sub":"\u202eecila","\u2066aud":"x\u200by"}"#;
        let text = inspected(r#"{"alg":"\u001b[31m"}"#, claims).text(Style::PLAIN);
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{2066}', '\u{200b}']), "{text:?}");
    }
}
