//! The examples printed in RFC 7515, 7519, 8037 and 6750.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use valgate::catalogue::Reason;
use valgate::clock::UnixSeconds;
use valgate::gateway::token_from_header;
use valgate::token::{BearerToken, Claims, Compact};

use super::jws;

type Outcome = Result<(), Failed>;
type Named = (&'static str, fn() -> Outcome);

pub fn trials() -> Vec<Trial> {
    let tests: [Named; 17] = [
        ("rfc7515::a1_hs256::refused_since_hmac_is_never_accepted", a1_hs256),
        ("rfc7515::a2_rs256::accepted", a2_rs256),
        ("rfc7515::a3_es256::accepted", a3_es256),
        ("rfc7515::a4_es512::accepted", a4_es512),
        ("rfc7515::a5_unsecured::refused", a5_unsecured),
        ("rfc7515::a6_general_json_serialization::refused", a6_general_json),
        ("rfc7515::a7_flattened_json_serialization::refused", a7_flattened_json),
        ("rfc7515::appendix_e_unknown_critical_header::refused", appendix_e_critical),
        ("rfc7515::keys_of_other_examples::refused", keys_are_not_exchangeable),
        ("rfc7519::section_3_1_claims::read", section_3_1_claims),
        ("rfc7519::section_6_1_unsecured_jwt::refused", section_6_1_unsecured),
        ("rfc8037::a4_ed25519::accepted", ed25519),
        ("rfc8037::a4_ed25519_changed::refused", ed25519_changed),
        ("rfc6750::section_2_1_authorization_header::read", authorization_header),
        ("rfc6750::section_2_1_scheme_in_any_case::read", authorization_scheme),
        ("rfc6750::section_2_1_not_a_b64token::refused", not_a_b64token),
        ("rfc6750::section_3_1_error_codes::as_printed", error_codes),
    ];
    tests.into_iter().map(|(name, test)| Trial::test(name, test)).collect()
}

/// The claims of RFC 7519 section 3.1, which RFC 7515 signs in all of appendix A.1 to A.3.
const CLAIMS: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const RS256: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5\
    jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN\
    9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVm\
    tVrBp0igcN_IoypGlUPQGe77Rw";
const ES256: &str = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const ES512: &str = "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8Ga\
    SwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
const ED25519: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3\
    AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

fn hmac_key() -> Value {
    json!({
        "kty": "oct",
        "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    })
}

fn rsa_key() -> Value {
    json!({
        "kty": "RSA",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-\
            SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7\
            WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91\
            kzk2PAcDTW9gb54h4FRWyuXpoQ",
        "e": "AQAB",
    })
}

fn p256_key() -> Value {
    json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    })
}

fn p521_key() -> Value {
    json!({
        "kty": "EC",
        "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
    })
}

fn ed25519_key() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

fn a1_hs256() -> Outcome {
    let token = format!(
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
    refused(&token, &[hmac_key(), p256_key()])
}

fn a2_rs256() -> Outcome {
    accepted(&format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.{RS256}"), rsa_key(), b"{\"iss\":\"joe\",\r\n ")
}

fn a3_es256() -> Outcome {
    accepted(&format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.{ES256}"), p256_key(), b"{\"iss\":\"joe\",\r\n ")
}

fn a4_es512() -> Outcome {
    accepted(&format!("eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.{ES512}"), p521_key(), b"Payload")
}

fn a5_unsecured() -> Outcome {
    refused(&format!("eyJhbGciOiJub25lIn0.{CLAIMS}."), &[rsa_key()])
}

fn a6_general_json() -> Outcome {
    let token = json!({
        "payload": CLAIMS,
        "signatures": [
            { "protected": "eyJhbGciOiJSUzI1NiJ9", "header": { "kid": "2010-12-29" }, "signature": RS256 },
            { "protected": "eyJhbGciOiJFUzI1NiJ9", "header": { "kid": "e9bc097a" }, "signature": ES256 },
        ],
    });
    refused(&token.to_string(), &[rsa_key(), p256_key()])
}

fn a7_flattened_json() -> Outcome {
    let token = json!({
        "payload": CLAIMS,
        "protected": "eyJhbGciOiJFUzI1NiJ9",
        "header": { "kid": "e9bc097a-ce51-4036-9562-d2ade882db0d" },
        "signature": ES256,
    });
    refused(&token.to_string(), &[p256_key()])
}

fn appendix_e_critical() -> Outcome {
    let token = "eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERUZJTkVEIl0sDQogImh0dHA6Ly9leGFtcGxlLm\
        NvbS9VTkRFRklORUQiOnRydWUNCn0.RkFJTA.";
    refused(token, &[rsa_key()])?;
    // The example is unsecured as well; signed, only its critical header is left to refuse it.
    let signed = format!("{token}{ES256}");
    holds("the critical header is what is refused", said(&signed, &[p256_key()]).contains("crit"))
}

fn keys_are_not_exchangeable() -> Outcome {
    let others = [p256_key(), p521_key(), ed25519_key(), hmac_key()];
    refused(&format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.{RS256}"), &others)?;
    refused(&format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.{ES256}"), &[rsa_key(), p521_key()])?;
    refused(&format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.{RS256}"), &[rsa_key(), p256_key()])
}

fn section_3_1_claims() -> Outcome {
    let token = format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.{RS256}");
    let claims = Claims::new(Compact::parse(&token)?.claims()?);
    holds("iss", claims.issuer() == Ok(Some("joe")))?;
    holds("exp", claims.expires() == Ok(Some(UnixSeconds(1_300_819_380))))?;
    holds("a private claim", claims.all().get("http://example.com/is_root") == Some(&json!(true)))
}

fn section_6_1_unsecured() -> Outcome {
    let token = format!("eyJhbGciOiJub25lIn0.{CLAIMS}.");
    refused(&token, &[rsa_key()])
}

fn ed25519() -> Outcome {
    accepted(ED25519, ed25519_key(), b"Example of Ed25519 signing")
}

fn ed25519_changed() -> Outcome {
    refused(&ED25519.replace("RXhhbXBsZSB", "RXhhbXBsZSA"), &[ed25519_key()])
}

fn authorization_header() -> Outcome {
    let text = bearer("Bearer mF_9.B5f-4.1JqM")?;
    holds("the token is what follows the scheme", text == "mF_9.B5f-4.1JqM")?;
    holds("it has the form of a token", BearerToken::new(&text).is_some())
}

fn authorization_scheme() -> Outcome {
    ["bearer", "BEARER", "bEaReR"].into_iter().try_for_each(|scheme| {
        holds(scheme, bearer(&format!("{scheme} mF_9.B5f-4.1JqM"))? == "mF_9.B5f-4.1JqM")
    })
}

fn not_a_b64token() -> Outcome {
    ["mF_9.B5f-4.1JqM,", "\"mF_9.B5f-4.1JqM\"", "mF_9 B5f-4", "=mF_9", "mF=9"]
        .into_iter()
        .try_for_each(|text| holds(text, BearerToken::new(text).is_none()))
}

fn error_codes() -> Outcome {
    let rows = [
        (Reason::Missing, 401, None),
        (Reason::Multiple, 400, Some("invalid_request")),
        (Reason::Expired, 401, Some("invalid_token")),
        (Reason::Revoked, 401, Some("invalid_token")),
        (Reason::InsufficientScope, 403, Some("insufficient_scope")),
    ];
    rows.into_iter().try_for_each(|(reason, status, error)| {
        let same = reason.status().as_u16() == status && reason.bearer_error() == error;
        holds(reason.name(), same)
    })
}

fn bearer(header: &str) -> Result<String, Failed> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(header)?);
    match token_from_header(&headers) {
        Ok(Some(shown)) => Ok(String::from_utf8(shown.expose().to_owned())?),
        Ok(None) => Err("no credential was found".into()),
        Err(rejection) => Err(rejection.reason().name().into()),
    }
}

fn accepted(token: &str, key: Value, payload: &[u8]) -> Outcome {
    let signed = jws::verify(token, &[key])?;
    holds("the payload is the one printed", signed.starts_with(payload))
}

fn refused(token: &str, keys: &[Value]) -> Outcome {
    holds("the token is refused", jws::verify(token, keys).is_err())
}

fn said(token: &str, keys: &[Value]) -> String {
    jws::verify(token, keys).err().unwrap_or_default()
}

fn holds(what: &str, condition: bool) -> Outcome {
    if condition { Ok(()) } else { Err(format!("does not hold: {what}").into()) }
}
