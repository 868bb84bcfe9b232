use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::{CertificateFact, CertificateRules, ClientCertificate};
use crate::catalogue::Reason;

fn certificate(common_name: &str, names: Vec<SanType>) -> ClientCertificate {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Example");
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    params.subject_alt_names = names;
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    ClientCertificate::from_der(certificate.der()).unwrap()
}

fn orders() -> ClientCertificate {
    certificate(
        "orders",
        vec![
            SanType::URI("spiffe://example.org/orders".try_into().unwrap()),
            SanType::DnsName("Orders.Example.org".try_into().unwrap()),
            SanType::Rfc822Name("orders@example.org".try_into().unwrap()),
        ],
    )
}

#[test]
fn a_certificate_says_who_its_bearer_is() {
    let certificate = orders();
    for (fact, text) in [
        (CertificateFact::Subject, "CN=orders,O=Example"),
        (CertificateFact::CommonName, "orders"),
        (CertificateFact::SanDns, "orders.example.org"),
        (CertificateFact::SanUri, "spiffe://example.org/orders"),
        (CertificateFact::SanEmail, "orders@example.org"),
    ] {
        assert_eq!(certificate.texts(fact), [text]);
    }
    assert_eq!(certificate.texts(CertificateFact::Thumbprint)[0].len(), 64);
    assert_eq!(certificate.principal(), "spiffe://example.org/orders");
}

#[test]
fn no_common_name_passes_for_another_subject() {
    for (name, subject) in [
        ("a,O=Admin", "CN=a\\,O=Admin,O=Example"),
        ("a+OU=x", "CN=a\\+OU=x,O=Example"),
        (" a#", "CN=\\ a#,O=Example"),
        ("#a ", "CN=\\#a\\ ,O=Example"),
        ("a\nb\\", "CN=a\\0ab\\\\,O=Example"),
    ] {
        assert_eq!(certificate(name, vec![]).texts(CertificateFact::Subject), [subject], "{name}");
    }
}

#[test]
fn all_rules_must_hold_each_by_one_of_its_texts() {
    let certificate = orders();
    let admitted = |rules: &[(CertificateFact, &[&str])]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let rules = CertificateRules::new(rules.iter().map(|(fact, texts)| (*fact, owned(texts))).collect());
        rules.admit(Some(&certificate)).map(|_| ()).map_err(|rejection| rejection.reason())
    };
    let uri: (CertificateFact, &[&str]) = (CertificateFact::SanUri, &["x", "spiffe://example.org/orders"]);
    assert_eq!(admitted(&[]), Ok(()));
    assert_eq!(admitted(&[uri, (CertificateFact::CommonName, &["orders"])]), Ok(()));
    for refused in [
        (CertificateFact::CommonName, "order"),
        (CertificateFact::CommonName, "Orders"),
        (CertificateFact::SanUri, "spiffe://example.org/orders/"),
        (CertificateFact::SanDns, "example.org"),
        (CertificateFact::Subject, "CN=orders"),
        (CertificateFact::Thumbprint, ""),
    ] {
        assert_eq!(admitted(&[uri, (refused.0, &[refused.1])]), Err(Reason::CertificateRule), "{refused:?}");
    }
    let none = CertificateRules::default().admit(None).unwrap_err();
    assert_eq!(none.reason(), Reason::CertificateMissing);
}

#[test]
fn what_is_no_certificate_is_an_error() {
    let certificate = orders();
    for bytes in [&b""[..], b"\x30\x03\x02\x01\x00", &[&certificate.der[..], b"x"].concat()] {
        assert!(ClientCertificate::from_der(bytes).is_err());
    }
}
