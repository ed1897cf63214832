//! Reads certificates and keys (PEM). Errors never show what a file says: it may be a key.

use std::{path::Path, sync::Arc, time::SystemTime};

use tokio_rustls::rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::peer::expires_at_s;
use crate::{
    error::TlsError,
    metrics::{Part, SecurityMetrics},
    reload::Files,
};

/// The cryptography of every connection.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(tokio_rustls::rustls::crypto::ring::default_provider())
}

fn read(files: &mut Files, path: &Path) -> Result<Vec<u8>, TlsError> {
    files.read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

/// The certificates of a file, the owner's first; at least one.
pub(super) fn certificates(files: &mut Files, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(files, path)?;
    let wrong = |reason| TlsError::Content { path: path.to_owned(), reason };
    let all = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| wrong("its certificates are not valid PEM"))?;
    if all.is_empty() {
        return Err(wrong("it has no certificate (PEM)"));
    }
    Ok(all)
}

/// The first private key of a file.
pub(super) fn key(files: &mut Files, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(files, path)?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| TlsError::Content { path: path.to_owned(), reason: "it has no private key (PEM)" })
}

/// The authorities of a file.
pub(super) fn authorities(files: &mut Files, path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(files, path)? {
        roots.add(certificate).map_err(|_| TlsError::Content {
            path: path.to_owned(),
            reason: "it has a certificate that cannot be an authority",
        })?;
    }
    Ok(Arc::new(roots))
}

/// Records when the certificate expires. One that has expired is taken: whether the clock or the certificate is wrong is
/// for the other side to say.
pub(super) fn record_expiry(part: Part, own: Option<&CertificateDer<'_>>, metrics: &SecurityMetrics) {
    let Some(expires_at_s) = own.and_then(expires_at_s) else { return };
    metrics.expires(part, expires_at_s);
    let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    if expires_at_s < now_s {
        tracing::warn!(part = part.as_str(), "the certificate has expired; peers will refuse it");
    }
}
