//! Bearer tokens: from bytes that a stranger sent to claims that an issuer stands behind.
