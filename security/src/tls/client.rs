//! The client's side: connections to other roles, verified against the cluster's authority.

use std::{
    fmt,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{self, ClientConfig, client::Resumption, pki_types::ServerName},
};
use tower::Service;

use super::{
    HANDSHAKE_TIMEOUT, Protocol, Role,
    connection::Connection,
    files::{authorities, certificates, key, provider, record_expiry},
};
use crate::{
    error::TlsError,
    metrics::{Part, SecurityMetrics},
    reload::{Files, Reload, Reloading},
};

/// The files of connections to other roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// Authorities of the servers' certificates, PEM. The system's are not used.
    pub ca: PathBuf,
    /// The own certificate and its key, PEM; without them the server sees no certificate.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that servers' certificates must have; `None`: the host of the address, which may be an IP address.
    pub server_name: Option<String>,
}

/// Makes TLS connections. Clones share what is in force.
#[derive(Clone)]
pub struct ClientTls {
    loaded: Arc<Reloading<Loaded>>,
    server_name: Option<ServerName<'static>>,
}

struct Loaded([Arc<ClientConfig>; 3]);

impl ClientTls {
    /// Reads the files; hand [`ClientTls::reload`] to a [`crate::Watcher`] to have them read again.
    pub fn open(files: ClientTlsFiles, metrics: Arc<SecurityMetrics>) -> Result<Self, TlsError> {
        let server_name = files.server_name.clone().map(server_name).transpose()?;
        let of_load = metrics.clone();
        let load = move |read: &mut Files| load(&files, read, &of_load);
        let loaded = Arc::new(Reloading::open(Part::ClusterClientTls, metrics, load)?);
        Ok(Self { loaded, server_name })
    }

    /// What a watcher looks at.
    pub fn reload(&self) -> Arc<dyn Reload> {
        self.loaded.clone()
    }

    /// Why the files as they are now were refused; `None` where they are in force.
    pub fn last_error(&self) -> Option<String> {
        self.loaded.last_error()
    }

    /// What is in force for a protocol.
    pub fn config(&self, protocol: Protocol) -> Arc<ClientConfig> {
        self.loaded.current().0[protocol as usize].clone()
    }

    /// The handshake on a connection, without a time-out. `host` is the server's name where none is configured.
    pub async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        protocol: Protocol,
    ) -> Result<Connection, TlsError> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => server_name(host.to_owned())?,
        };
        let stream = TlsConnector::from(self.config(protocol)).connect(name, stream).await?;
        Ok(Connection::of_client(stream))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

fn server_name(name: String) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name))
}

fn load(files: &ClientTlsFiles, read: &mut Files, metrics: &SecurityMetrics) -> Result<Loaded, TlsError> {
    let unusable = |e: rustls::Error| TlsError::Unusable {
        path: files.identity.as_ref().map_or(&files.ca, |(cert, _)| cert).clone(),
        reason: e.to_string(),
    };
    // All are read before any is judged: the watcher compares what was read.
    let roots = authorities(read, &files.ca);
    let own = files.identity.as_ref().map(|(cert, path)| (certificates(read, cert), key(read, path)));
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots?);
    let (mut config, chain) = match own {
        Some((chain, key)) => {
            let (chain, key) = (chain?, key?);
            (builder.with_client_auth_cert(chain.clone(), key).map_err(unusable)?, chain)
        }
        None => (builder.with_no_client_auth(), Vec::new()),
    };
    config.resumption = Resumption::disabled();
    record_expiry(Part::ClusterClientTls, chain.first(), metrics);
    Ok(Loaded(Protocol::ALL.map(|protocol| {
        let mut config = config.clone();
        config.alpn_protocols = protocol.alpn();
        Arc::new(config)
    })))
}

/// Opens connections for `tonic::transport::Endpoint::connect_with_connector`. Whether they are TLS is configuration's to say,
/// not the address's: addresses are written `http://host:port` in both cases.
#[derive(Clone, Debug)]
pub struct Connector {
    tls: Option<ClientTls>,
    expected: Option<Role>,
    timeout: Duration,
}

impl Connector {
    /// TLS where there is some, else plain connections.
    pub fn new(tls: Option<ClientTls>) -> Self {
        Self { tls, expected: None, timeout: HANDSHAKE_TIMEOUT }
    }

    /// Refuses servers whose certificate does not have this role. Without TLS it has no effect.
    #[must_use]
    pub fn expecting(self, role: Role) -> Self {
        Self { expected: Some(role), ..self }
    }

    /// Time for connection and handshake together; [`HANDSHAKE_TIMEOUT`] where it is not set.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Opens a connection to the host and port of an address.
    pub async fn connect(&self, to: &Uri) -> Result<Connection, TlsError> {
        let host = to.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = to.port_u16().unwrap_or(if to.scheme_str() == Some("https") { 443 } else { 80 });
        let connect = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = &self.tls else { return Ok(Connection::plain(stream)) };
            let connection = tls.connect(stream, host, Protocol::Grpc).await?;
            match self.expected {
                Some(role) if !connection.peer().identity.as_ref().is_some_and(|i| i.has_any(&[role])) => {
                    Err(TlsError::WrongRole(role))
                }
                _ => Ok(connection),
            }
        };
        tokio::time::timeout(self.timeout, connect).await.unwrap_or(Err(TlsError::TimedOut(self.timeout)))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = TlsError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, TlsError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&to).await.map(TokioIo::new) })
    }
}
