//! Client certificates of open connections. A handshake looks at a certificate once; when its authorities, or the lists
//! of what they have revoked, change, those that are in use are looked at again.
//!
//! Knows nothing of how a certificate is judged, which is the TLS library's, nor of what becomes of a connection whose
//! certificate has lost its worth.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use crate::clock::Clock;

/// Who vouches for the client certificates of one listener, as one core has it: any of them will do.
#[derive(Debug)]
pub struct Vouching {
    verifiers: RefCell<Vec<Arc<dyn ClientCertVerifier>>>,
    generation: Cell<u64>,
}

/// Who vouched for certificates at one moment.
#[derive(Clone, Debug)]
pub struct Vouched {
    by: Rc<Vouching>,
    generation: u64,
}

/// The certificates that a connection has shown, the client's own first.
#[derive(Debug)]
pub struct Shown {
    chain: Vec<CertificateDer<'static>>,
    by: Rc<Vouching>,
    judged: Cell<u64>,
}

/// What came of looking at certificates in one go. Many connections show the same one, and a long list of what was revoked
/// is read anew for each look.
#[derive(Debug, Default)]
pub struct Looks(HashMap<Look, Result<(), Disowned>>);

/// By whom, as of which generation, at which certificates.
type Look = (*const Vouching, u64, Vec<CertificateDer<'static>>);

/// Nobody vouches for the certificate any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Disowned {
    /// The listener asks for none now, or is gone and no other asks, so that nobody says whether it is still good.
    #[error("no listener that it could be used at asks for certificates any more")]
    NobodyAsks,
    /// It is not good any more.
    #[error("its certificate is not accepted any more: {0}")]
    Refused(rustls::Error),
}

impl Vouching {
    pub fn by(verifiers: Vec<Arc<dyn ClientCertVerifier>>) -> Self {
        Self { verifiers: RefCell::new(verifiers), generation: Cell::new(0) }
    }

    /// These from now on; whether they are others.
    pub fn replace(&self, verifiers: Vec<Arc<dyn ClientCertVerifier>>) -> bool {
        let is_same = {
            let before = self.verifiers.borrow();
            before.len() == verifiers.len()
                && before.iter().zip(&verifiers).all(|(old, new)| Arc::ptr_eq(old, new))
        };
        if !is_same {
            self.verifiers.replace(verifiers);
            self.generation.set(self.generation.get().wrapping_add(1));
        }
        !is_same
    }

    /// To be had before the handshake, so that no change falls between the two.
    pub fn of_now(self: &Rc<Self>) -> Vouched {
        Vouched { by: Rc::clone(self), generation: self.generation.get() }
    }
}

impl Vouched {
    /// What a handshake has accepted that began at that moment.
    pub fn accepted(&self, chain: Vec<CertificateDer<'static>>) -> Shown {
        Shown { chain, by: Rc::clone(&self.by), judged: Cell::new(self.generation) }
    }
}

impl Shown {
    /// Whether what it was judged by has changed since.
    pub fn is_outdated(&self) -> bool {
        self.judged.get() != self.by.generation.get()
    }

    /// Judges it by what is in force now, as others that are the same were judged in this go.
    pub fn judge(&self, clock: &Clock, looks: &mut Looks) -> Result<(), Disowned> {
        let generation = self.by.generation.get();
        let look = (Rc::as_ptr(&self.by), generation, self.chain.clone());
        let outcome = looks.0.entry(look).or_insert_with(|| self.look(clock)).clone();
        if outcome.is_ok() {
            self.judged.set(generation);
        }
        outcome
    }

    fn look(&self, clock: &Clock) -> Result<(), Disowned> {
        let now = u64::try_from(clock.wall().0).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let mut outcome = Err(Disowned::NobodyAsks);
        for verifier in &*self.by.verifiers.borrow() {
            let Some((own, others)) = self.chain.split_first() else { return Ok(()) };
            outcome = verifier.verify_client_cert(own, others, now).map(drop).map_err(Disowned::Refused);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}
