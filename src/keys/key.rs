//! One public key, prepared for verification, and bound to the algorithms it may be used with.
//!
//! A key decides by itself which algorithms it serves, so that a token's `alg` can never make an RSA key act as
//! anything else (RFC 8725 section 3.1). Knows nothing of JSON.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature as lc;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Algorithm, Unusable};

/// The public numbers of a key, still unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 7518 section 6 and RFC 8037 section 2")]
pub enum KeyMaterial {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256 { x: Vec<u8>, y: Vec<u8> },
    P384 { x: Vec<u8>, y: Vec<u8> },
    P521 { x: Vec<u8>, y: Vec<u8> },
    Ed25519 { x: Vec<u8> },
}

/// A key's identifier, as its issuer chose it (RFC 7515 section 4.1.4).
pub type Kid = Box<str>;

/// The SHA-256 thumbprint of a key's public numbers (RFC 7638): the same key has the same one under any `kid`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint(pub [u8; 32]);

/// A public key that is fit to verify signatures.
pub struct VerificationKey {
    kid: Option<Kid>,
    thumbprint: Thumbprint,
    algorithms: Vec<Algorithm>,
    /// Parallel to `algorithms`: the library binds a prepared key to padding and digest.
    prepared: Vec<lc::ParsedPublicKey>,
}

impl VerificationKey {
    /// Checks and prepares a key. `algorithms` narrows those that the material allows; `None` allows all of its
    /// family and curve.
    ///
    /// # Errors
    /// The numbers are no sound key: modulus under 2048 or over 8192 bits, exponent even, under 65537 or over 33
    /// bits (FIPS 186-5 section 5.4), a coordinate of the wrong length, a point that is not on the curve or of
    /// small order. Or `algorithms` has nothing in common with what the material allows.
    pub fn new(
        kid: Option<Kid>,
        material: &KeyMaterial,
        algorithms: Option<&[Algorithm]>,
    ) -> Result<Self, Unusable> {
        let material = material.checked()?;
        let algorithms: Vec<Algorithm> = material
            .family()
            .iter()
            .copied()
            .filter(|own| algorithms.is_none_or(|narrow| narrow.iter().any(|other| own.same_as(*other))))
            .collect();
        if algorithms.is_empty() {
            return Err(Unusable::AlgorithmDoesNotFit);
        }
        let prepared =
            algorithms.iter().map(|algorithm| material.prepare(*algorithm)).collect::<Result<_, _>>()?;
        Ok(Self { kid, thumbprint: material.thumbprint(), algorithms, prepared })
    }

    /// Whether `signature` is this key's over `signing_input` by `algorithm`; `false` too if the algorithm is not
    /// one of the key's. ECDSA signatures are `r || s` of exact length (RFC 7518 section 3.4).
    pub fn verify(&self, algorithm: Algorithm, signing_input: &[u8], signature: &[u8]) -> bool {
        self.algorithms
            .iter()
            .zip(&self.prepared)
            .find(|(own, _)| **own == algorithm)
            .is_some_and(|(_, key)| key.verify_sig(signing_input, signature).is_ok())
    }

    /// The key's identifier, if the issuer gave it one.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The key's identity, whatever it is called.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// The algorithms that this key may be used with; never empty.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }
}

/// The same key under the same name for the same algorithms.
impl PartialEq for VerificationKey {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid && self.thumbprint == other.thumbprint && self.algorithms == other.algorithms
    }
}

impl Eq for VerificationKey {}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("kid", &self.kid)
            .field("thumbprint", &self.thumbprint)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

impl Thumbprint {
    /// The first eight characters of [`Display`](fmt::Display): enough to tell keys apart in a log line.
    pub fn prefix(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

/// In base64url, as RFC 7638 shows it.
impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Key material whose numbers are in canonical form and range; points are still to be decoded.
enum Checked<'a> {
    Rsa { n: &'a [u8], e: &'a [u8] },
    Ec { curve: &'static Curve, x: &'a [u8], y: &'a [u8] },
    Ed25519 { x: &'a [u8] },
}

struct Curve {
    name: &'static str,
    coordinate_bytes: usize,
    algorithm: &'static [Algorithm],
    verification: &'static lc::EcdsaVerificationAlgorithm,
}

impl KeyMaterial {
    fn checked(&self) -> Result<Checked<'_>, Unusable> {
        match self {
            Self::Rsa { n, e } => {
                let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
                check_modulus(n)?;
                check_exponent(e)?;
                Ok(Checked::Rsa { n, e })
            }
            Self::P256 { x, y } => Checked::ec(&P256, x, y),
            Self::P384 { x, y } => Checked::ec(&P384, x, y),
            Self::P521 { x, y } => Checked::ec(&P521, x, y),
            Self::Ed25519 { x } => {
                check_coordinate("x", x, lc::ED25519_PUBLIC_KEY_LEN)?;
                if is_small_order(x) { Err(Unusable::WeakPoint) } else { Ok(Checked::Ed25519 { x }) }
            }
        }
    }
}

impl<'a> Checked<'a> {
    fn ec(curve: &'static Curve, x: &'a [u8], y: &'a [u8]) -> Result<Self, Unusable> {
        check_coordinate("x", x, curve.coordinate_bytes)?;
        check_coordinate("y", y, curve.coordinate_bytes)?;
        Ok(Self::Ec { curve, x, y })
    }

    fn family(&self) -> &'static [Algorithm] {
        match self {
            Self::Rsa { .. } => RSA_FAMILY,
            Self::Ec { curve, .. } => curve.algorithm,
            Self::Ed25519 { .. } => ED25519_FAMILY,
        }
    }

    fn prepare(&self, algorithm: Algorithm) -> Result<lc::ParsedPublicKey, Unusable> {
        match self {
            Self::Rsa { n, e } => lc::RsaPublicKeyComponents { n, e }
                .to_parsed_public_key(rsa_parameters(algorithm).ok_or(Unusable::AlgorithmDoesNotFit)?)
                .map_err(|_| Unusable::NotAKey),
            Self::Ec { curve, x, y } => {
                let mut point = Vec::with_capacity(1 + x.len() + y.len());
                point.push(UNCOMPRESSED_POINT);
                point.extend_from_slice(x);
                point.extend_from_slice(y);
                lc::ParsedPublicKey::new(curve.verification, point).map_err(|_| Unusable::NotOnCurve)
            }
            Self::Ed25519 { x } => {
                lc::ParsedPublicKey::new(&lc::ED25519, x).map_err(|_| Unusable::NotOnCurve)
            }
        }
    }

    /// RFC 7638 section 3: the required members in the order of their names, without whitespace.
    fn thumbprint(&self) -> Thumbprint {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let canonical = match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n)),
            Self::Ec { curve, x, y } => {
                format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, curve.name, encode(x), encode(y))
            }
            Self::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(x)),
        };
        let mut thumbprint = [0; 32];
        for (to, from) in thumbprint.iter_mut().zip(digest(&SHA256, canonical.as_bytes()).as_ref()) {
            *to = *from;
        }
        Thumbprint(thumbprint)
    }
}

/// Some issuers write a sign byte before the modulus, against RFC 7518 section 6.3.1.1; the number is the same.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |top| number.len() * 8 - top.leading_zeros() as usize)
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|last| last & 1 == 1)
}

fn check_modulus(n: &[u8]) -> Result<(), Unusable> {
    match bits(n) {
        bits if bits < MIN_MODULUS_BITS => Err(Unusable::ModulusTooSmall { bits }),
        bits if bits > MAX_MODULUS_BITS => Err(Unusable::ModulusTooLarge { bits }),
        _ if !is_odd(n) => Err(Unusable::NotAKey),
        _ => Ok(()),
    }
}

fn check_exponent(e: &[u8]) -> Result<(), Unusable> {
    let sound = is_odd(e) && (MIN_EXPONENT_BITS..=MAX_EXPONENT_BITS).contains(&bits(e));
    if sound { Ok(()) } else { Err(Unusable::WeakExponent) }
}

fn check_coordinate(name: &'static str, coordinate: &[u8], expected: usize) -> Result<(), Unusable> {
    if coordinate.len() == expected {
        Ok(())
    } else {
        Err(Unusable::CoordinateLength { name, actual: coordinate.len(), expected })
    }
}

/// Under a public key of small order, anyone can make signatures that verify.
fn is_small_order(x: &[u8]) -> bool {
    SMALL_ORDER.iter().any(|point| {
        let same = |index: usize, (a, b): (&u8, &u8)| if index == 31 { a & 0x7f == *b } else { a == b };
        x.iter().zip(point).enumerate().all(|(index, pair)| same(index, pair))
    })
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static lc::RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&lc::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&lc::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&lc::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&lc::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&lc::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&lc::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 | Algorithm::EdDsa | Algorithm::Ed25519 => {
            None
        }
    }
}

static P256: Curve = Curve {
    name: "P-256",
    coordinate_bytes: 32,
    algorithm: &[Algorithm::Es256],
    verification: &lc::ECDSA_P256_SHA256_FIXED,
};
static P384: Curve = Curve {
    name: "P-384",
    coordinate_bytes: 48,
    algorithm: &[Algorithm::Es384],
    verification: &lc::ECDSA_P384_SHA384_FIXED,
};
static P521: Curve = Curve {
    name: "P-521",
    coordinate_bytes: 66,
    algorithm: &[Algorithm::Es512],
    verification: &lc::ECDSA_P521_SHA512_FIXED,
};

const RSA_FAMILY: &[Algorithm] = &[
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
];
const ED25519_FAMILY: &[Algorithm] = &[Algorithm::EdDsa, Algorithm::Ed25519];

/// RFC 7518 section 3.3: 2048 or larger.
const MIN_MODULUS_BITS: usize = 2048;
/// The cost of a verification grows with the square of this; nobody signs tokens with more.
const MAX_MODULUS_BITS: usize = 8192;
/// FIPS 186-5 section 5.4: at least 2^16 + 1.
const MIN_EXPONENT_BITS: usize = 17;
/// What the library accepts; larger ones only cost time.
const MAX_EXPONENT_BITS: usize = 33;
/// SEC 1 section 2.3.3.
const UNCOMPRESSED_POINT: u8 = 4;

/// The encodings of the points of order 1, 2, 4 and 8 (and two that are not reduced), without the sign bit.
#[rustfmt::skip]
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
     0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05],
    [0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
     0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a],
    near_prime(0xec),
    near_prime(0xed),
    near_prime(0xee),
];

const fn near_prime(low: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    let [first, .., last] = &mut bytes;
    *first = low;
    *last = 0x7f;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::testing::Signer;

    #[test]
    fn every_algorithm_verifies_its_own_signature_and_no_other() {
        for signer in Signer::one_of_each() {
            let key = signer.key();
            for algorithm in Algorithm::ALL {
                let fits = key.algorithms().contains(&algorithm);
                assert_eq!(fits, signer.fits(algorithm), "{algorithm}");
                if !fits {
                    assert!(!key.verify(algorithm, b"input", &[0; 64]));
                    continue;
                }
                let signature = signer.sign(algorithm, b"input");
                for judged in Algorithm::ALL {
                    assert_eq!(
                        key.verify(judged, b"input", &signature),
                        judged.same_as(algorithm),
                        "signed {algorithm}, judged as {judged}"
                    );
                }
                assert!(!key.verify(algorithm, b"inpuT", &signature), "{algorithm}");
                let mut longer = signature.clone();
                longer.push(0);
                assert!(!key.verify(algorithm, b"input", &longer), "{algorithm}: a byte too many");
                assert!(!key.verify(algorithm, b"input", &signature[1..]), "{algorithm}: a byte too few");
                assert!(!key.verify(algorithm, b"input", &vec![0; signature.len()]), "{algorithm}: zeros");
                assert!(!key.verify(algorithm, b"input", b""), "{algorithm}: nothing");
            }
        }
    }

    #[test]
    fn a_key_with_an_algorithm_of_its_own_serves_no_other() {
        let signer = Signer::rsa();
        let key = VerificationKey::new(None, &signer.material(), Some(&[Algorithm::Ps256])).unwrap();
        assert_eq!(key.algorithms(), [Algorithm::Ps256]);
        let signature = signer.sign(Algorithm::Rs256, b"input");
        assert!(!key.verify(Algorithm::Rs256, b"input", &signature));
        assert!(VerificationKey::new(None, &signer.material(), Some(&[Algorithm::Es256])).is_err());
    }

    #[test]
    fn ed25519_goes_by_both_of_its_names() {
        let material = Signer::ed25519().material();
        for name in [Algorithm::EdDsa, Algorithm::Ed25519] {
            let key = VerificationKey::new(None, &material, Some(&[name])).unwrap();
            assert_eq!(key.algorithms(), [Algorithm::EdDsa, Algorithm::Ed25519]);
        }
    }

    #[test]
    fn ecdsa_in_der_form_is_refused() {
        let (der, key) = Signer::p256_der_signature(b"input");
        assert!(!key.verify(Algorithm::Es256, b"input", &der));
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let n = URL_SAFE_NO_PAD.decode(n).unwrap();
        for prefix in [&[][..], &[0]] {
            let material = KeyMaterial::Rsa { n: [prefix, &n].concat(), e: vec![1, 0, 1] };
            let key = VerificationKey::new(None, &material, None).unwrap();
            assert_eq!(key.thumbprint().to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        }
    }

    #[test]
    fn the_ed25519_thumbprint_is_that_of_rfc_8037() {
        let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let key = VerificationKey::new(None, &KeyMaterial::Ed25519 { x }, None).unwrap();
        assert_eq!(key.thumbprint().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn unsound_rsa_numbers_are_refused() {
        let modulus = |bytes: usize, last: u8| {
            let mut n = vec![0xc5; bytes];
            *n.last_mut().unwrap() = last;
            n
        };
        let cases: [(&str, Vec<u8>, &[u8], bool); 12] = [
            ("2048 bits", modulus(256, 1), &[1, 0, 1], true),
            ("8192 bits", modulus(1024, 1), &[1, 0, 1], true),
            ("2040 bits", modulus(255, 1), &[1, 0, 1], false),
            ("8200 bits", modulus(1025, 1), &[1, 0, 1], false),
            ("even modulus", modulus(256, 2), &[1, 0, 1], false),
            ("no modulus", vec![], &[1, 0, 1], false),
            ("zero modulus", vec![0; 256], &[1, 0, 1], false),
            ("exponent one", modulus(256, 1), &[1], false),
            ("exponent three", modulus(256, 1), &[3], false),
            ("even exponent", modulus(256, 1), &[1, 0, 0], false),
            ("no exponent", modulus(256, 1), &[], false),
            ("huge exponent", modulus(256, 1), &[1, 0, 0, 0, 0, 1], false),
        ];
        for (name, n, e, sound) in cases {
            let result = VerificationKey::new(None, &KeyMaterial::Rsa { n, e: e.to_vec() }, None);
            assert_eq!(result.is_ok(), sound, "{name}: {result:?}");
        }
    }

    #[test]
    fn points_off_the_curve_and_of_small_order_are_refused() {
        let KeyMaterial::P256 { x, y } = Signer::p256().material() else { unreachable!() };
        let mut off = y.clone();
        off[31] ^= 1;
        let short = x[1..].to_vec();
        assert_eq!(
            VerificationKey::new(None, &KeyMaterial::P256 { x: x.clone(), y: off }, None),
            Err(Unusable::NotOnCurve)
        );
        assert_eq!(
            VerificationKey::new(None, &KeyMaterial::P256 { x: short, y }, None),
            Err(Unusable::CoordinateLength { name: "x", actual: 31, expected: 32 })
        );
        for point in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut x = point.to_vec();
                x[31] |= sign;
                assert_eq!(
                    VerificationKey::new(None, &KeyMaterial::Ed25519 { x }, None),
                    Err(Unusable::WeakPoint)
                );
            }
        }
    }
}
