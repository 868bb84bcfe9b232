//! Lists of revoked client certificates: read from files, and refused where two of them speak for the same certificates.
//!
//! The TLS library asks the first list that it finds responsible for a certificate, in the order in which it was given
//! them, and no other. With two for the same certificates, what the second revokes would pass. Knows nothing of
//! signatures, dates and handshakes: those are the TLS library's.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::server::VerifierBuilderError;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

/// What is wrong with a list of revoked certificates.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// The file cannot be read, or holds no list.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: pem::Error,
    },
    /// The TLS library does not take it.
    #[error("{}: no certificate revocation list that can be used: {cause}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What the TLS library said.
        cause: VerifierBuilderError,
    },
    /// Whom it speaks for cannot be read.
    #[error("{}: a certificate revocation list whose issuer or issuing distribution point cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
    },
    /// It speaks for certificates that another one speaks for too.
    #[error(
        "{}: a second certificate revocation list of `{issuer}` for the same certificates; the first is in {}: only one \
         of them would be asked, so keep the newest alone",
        second.display(),
        first.display()
    )]
    Ambiguous {
        /// Where the one is.
        first: PathBuf,
        /// Where the other one is, which may be the same file.
        second: PathBuf,
        /// The authority.
        issuer: String,
    },
}

/// The lists of a file, in PEM or one in DER, as authorities publish them; at least one.
pub(super) fn read(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, CrlError> {
    let unreadable = |cause| CrlError::File { path: path.to_owned(), cause };
    let bytes = std::fs::read(path).map_err(|cause| unreadable(pem::Error::Io(cause)))?;
    // A sequence, as every list is; no PEM begins so.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes.into()]);
    }
    let lists = CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match lists {
        Ok(lists) if lists.is_empty() => Err(unreadable(pem::Error::NoItemsFound)),
        lists => lists.map_err(unreadable),
    }
}

/// Lists of which no two speak for the same certificates.
#[derive(Debug, Default)]
pub(super) struct RevocationLists(Vec<(PathBuf, Scope, CertificateRevocationListDer<'static>)>);

impl RevocationLists {
    /// Takes in a list of this file.
    pub(super) fn add(
        &mut self,
        path: &Path,
        list: CertificateRevocationListDer<'static>,
    ) -> Result<(), CrlError> {
        let scope = Scope::of(&list).ok_or_else(|| CrlError::Unreadable { path: path.to_owned() })?;
        if let Some((first, ..)) = self.0.iter().find(|(_, other, _)| scope.overlaps(other)) {
            return Err(CrlError::Ambiguous {
                first: first.clone(),
                second: path.to_owned(),
                issuer: scope.issuer_name,
            });
        }
        self.0.push((path.to_owned(), scope, list));
        Ok(())
    }

    /// The names of the authorities of which there is a part that has a place of its own.
    pub(super) fn dividing(&self) -> Vec<Box<[u8]>> {
        let divided = self.0.iter().filter(|(_, scope, _)| scope.part.is_some());
        divided.map(|(_, scope, _)| scope.issuer.clone()).collect()
    }

    /// The lists, in the order in which they came.
    pub(super) fn into_der(self) -> Vec<CertificateRevocationListDer<'static>> {
        self.0.into_iter().map(|(.., list)| list).collect()
    }
}

/// The certificates that a list speaks for.
#[derive(Debug)]
struct Scope {
    issuer: Box<[u8]>,
    issuer_name: String,
    part: Option<Part>,
}

/// A list that is one of several (RFC 5280 section 5.2.5).
#[derive(Debug)]
struct Part {
    only_users: bool,
    only_authorities: bool,
    /// The places by which certificates name it.
    uris: Vec<String>,
}

impl Scope {
    fn of(list: &[u8]) -> Option<Self> {
        let (_, list) = CertificateRevocationList::from_der(list).ok()?;
        let mut points = list
            .extensions()
            .iter()
            .filter(|extension| extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        let part = points.next().map(|point| Part::of(point.parsed_extension()));
        let part = match part {
            Some(part) => Some(part?),
            None => None,
        };
        let issuer = list.issuer();
        Some(Self { issuer: issuer.as_raw().into(), issuer_name: issuer.to_string(), part })
    }

    /// Whether there may be certificates that both speak for, or a list for all stands beside one for some.
    fn overlaps(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && match (&self.part, &other.part) {
                (Some(one), Some(other)) => !one.is_apart_from(other),
                _ => true,
            }
    }
}

impl Part {
    fn of(extension: &ParsedExtension<'_>) -> Option<Self> {
        let ParsedExtension::IssuingDistributionPoint(point) = extension else { return None };
        let uris = match &point.distribution_point {
            Some(DistributionPointName::FullName(names)) => names.iter().filter_map(|name| match name {
                GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            }),
            _ => return None,
        };
        Some(Self {
            only_users: point.only_contains_user_certs,
            only_authorities: point.only_contains_ca_certs,
            uris: uris.collect(),
        })
    }

    fn is_apart_from(&self, other: &Self) -> bool {
        let of_other_kinds =
            (self.only_users && other.only_authorities) || (self.only_authorities && other.only_users);
        let share_a_place = || self.uris.iter().any(|uri| other.uris.contains(uri));
        let have_places = !self.uris.is_empty() && !other.uris.is_empty();
        of_other_kinds || (have_places && !share_a_place())
    }
}
