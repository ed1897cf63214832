//! The server's side: one configuration per protocol, replaced as a whole when a file changes.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        server::{NoServerSessionStorage, WebPkiClientVerifier},
    },
};

use super::{
    HANDSHAKE_TIMEOUT, Protocol,
    connection::Connection,
    files::{authorities, certificates, key, provider, record_expiry},
};
use crate::{
    error::TlsError,
    metrics::{Handshake, Part, SecurityMetrics},
    reload::{Files, Reload, Reloading},
};

/// The files of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to its authority, PEM.
    pub cert: PathBuf,
    /// The certificate's private key, PEM.
    pub key: PathBuf,
    /// Authorities of clients' certificates, PEM. Without it clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused in the handshake; needs `client_ca`.
    pub require_client_cert: bool,
}

/// Turns connections into TLS connections. Clones share what is in force.
#[derive(Clone)]
pub struct ServerTls(Arc<Reloading<Loaded>>, Arc<SecurityMetrics>);

struct Loaded([Arc<ServerConfig>; 3]);

impl ServerTls {
    /// Reads the files; hand [`ServerTls::reload`] to a [`crate::Watcher`] to have them read again.
    pub fn open(part: Part, files: TlsFiles, metrics: Arc<SecurityMetrics>) -> Result<Self, TlsError> {
        let of_load = metrics.clone();
        let load = move |read: &mut Files| load(part, &files, read, &of_load);
        Ok(Self(Arc::new(Reloading::open(part, metrics.clone(), load)?), metrics))
    }

    /// What a watcher looks at.
    pub fn reload(&self) -> Arc<dyn Reload> {
        self.0.clone()
    }

    /// Why the files as they are now were refused; `None` where they are in force.
    pub fn last_error(&self) -> Option<String> {
        self.0.last_error()
    }

    /// What is in force for a protocol.
    pub fn config(&self, protocol: Protocol) -> Arc<ServerConfig> {
        self.0.current().0[protocol as usize].clone()
    }

    /// The handshake on a connection that is about to begin one, within [`HANDSHAKE_TIMEOUT`]. Listeners that speak something
    /// before TLS use it (PostgreSQL, after the answer `S`); others use a [`super::Listener`].
    pub async fn accept(&self, stream: TcpStream, protocol: Protocol) -> Result<Connection, TlsError> {
        self.accept_within(stream, protocol, HANDSHAKE_TIMEOUT).await
    }

    pub(super) async fn accept_within(
        &self,
        stream: TcpStream,
        protocol: Protocol,
        most: Duration,
    ) -> Result<Connection, TlsError> {
        let counted = Counted::begin(&self.1);
        let handshake = TlsAcceptor::from(self.config(protocol)).accept(stream);
        let (result, ended) = match tokio::time::timeout(most, handshake).await {
            Ok(Ok(stream)) => (Ok(Connection::of_server(stream)), Handshake::Ok),
            Ok(Err(error)) => (Err(error.into()), Handshake::Failed),
            Err(_) => (Err(TlsError::TimedOut(most)), Handshake::TimedOut),
        };
        counted.0.handshake(ended);
        result
    }
}

/// A handshake that runs; one that is dropped runs no longer.
struct Counted<'a>(&'a SecurityMetrics);

impl<'a> Counted<'a> {
    fn begin(metrics: &'a SecurityMetrics) -> Self {
        metrics.handshakes_running.fetch_add(1, Relaxed);
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.handshakes_running.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

fn load(
    part: Part,
    files: &TlsFiles,
    read: &mut Files,
    metrics: &SecurityMetrics,
) -> Result<Loaded, TlsError> {
    let unusable = |e: rustls::Error| TlsError::Unusable { path: files.cert.clone(), reason: e.to_string() };
    // All are read before any is judged: the watcher compares what was read.
    let (chain, key) = (certificates(read, &files.cert), key(read, &files.key));
    let roots = files.client_ca.as_ref().map(|path| authorities(read, path)).transpose();
    let (chain, key, roots) = (chain?, key?, roots?);
    let verifies_clients = roots.is_some();
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match (roots, files.require_client_cert) {
        (Some(roots), is_required) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = if is_required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| TlsError::Unusable {
                path: files.client_ca.clone().unwrap_or_default(),
                reason: e.to_string(),
            })?)
        }
        (None, false) => builder.with_no_client_auth(),
        (None, true) => {
            return Err(TlsError::Content {
                path: files.cert.clone(),
                reason: "client certificates are required, and there is no file of their authorities",
            });
        }
    };
    let mut config = builder.with_single_cert(chain.clone(), key).map_err(unusable)?;
    if verifies_clients {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    record_expiry(part, chain.first(), metrics);
    Ok(Loaded(Protocol::ALL.map(|protocol| {
        let mut config = config.clone();
        config.alpn_protocols = protocol.alpn();
        Arc::new(config)
    })))
}
