//! A listener, plain or TLS, for axum and tonic.
//!
//! Handshakes run beside each other and beside the accepting of connections: a client that is slow with its own delays no
//! other. When as many run as may, the next connections wait in the system's backlog; the time-out bounds for how long.

use std::{io, net::SocketAddr, time::Duration};

use futures::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{HANDSHAKE_TIMEOUT, Protocol, ServerTls, connection::Connection};
use crate::error::TlsError;

/// Pause after the system refused a connection, mostly because there are no more file descriptors: trying again at once
/// would keep a core busy.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenerOptions {
    /// Handshakes at once; each holds a socket and some 20 KiB.
    pub handshakes_max: usize,
    /// Time for each.
    pub handshake_timeout: Duration,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self { handshakes_max: 1024, handshake_timeout: HANDSHAKE_TIMEOUT }
    }
}

/// A socket that gives connections which are ready to be served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<(ServerTls, Protocol)>,
    options: ListenerOptions,
    handshakes: JoinSet<Option<Connection>>,
}

impl Listener {
    /// Serves TLS where there is some, else plain connections.
    pub fn new(socket: TcpListener, tls: Option<ServerTls>, protocol: Protocol) -> Self {
        Self::with_options(socket, tls, protocol, ListenerOptions::default())
    }

    /// The same within other bounds.
    pub fn with_options(
        socket: TcpListener,
        tls: Option<ServerTls>,
        protocol: Protocol,
        options: ListenerOptions,
    ) -> Self {
        let tls = tls.map(|tls| (tls, protocol));
        Self { socket, tls, options, handshakes: JoinSet::new() }
    }

    /// The own address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection that is ready. Nothing is lost where the call is dropped; handshakes end with the listener.
    pub async fn next(&mut self) -> Connection {
        loop {
            let may_accept = self.handshakes.len() < self.options.handshakes_max.max(1);
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Some(connection)) => return connection,
                    Ok(None) => {}
                    Err(error) if error.is_panic() => tracing::error!(%error, "a handshake's task failed"),
                    Err(_) => {}
                },
                accepted = self.socket.accept(), if may_accept => match accepted {
                    Ok((stream, _)) => {
                        if let Some(connection) = self.begin(stream) {
                            return connection;
                        }
                    }
                    Err(error) => pause(error).await,
                },
            }
        }
    }

    /// A plain connection is ready at once; a handshake goes to its own task.
    fn begin(&mut self, stream: TcpStream) -> Option<Connection> {
        // Answers are written in one piece; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let Some((tls, protocol)) = &self.tls else { return Some(Connection::plain(stream)) };
        let (tls, protocol, most) = (tls.clone(), *protocol, self.options.handshake_timeout);
        self.handshakes.spawn(async move {
            let peer = stream.peer_addr().ok();
            match tls.accept_within(stream, protocol, most).await {
                Ok(connection) => Some(connection),
                Err(error) => {
                    log(peer, &error);
                    None
                }
            }
        });
        None
    }

    /// Connections as tonic takes them.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        futures::stream::unfold(
            self,
            |mut listener| async move { Some((Ok(listener.next().await), listener)) },
        )
    }
}

/// Anyone who can reach the port can make a handshake fail, so that it is counted and no more than a debug message.
fn log(peer: Option<SocketAddr>, error: &TlsError) {
    let peer = peer.map(|p| p.to_string()).unwrap_or_default();
    tracing::debug!(peer, %error, "a TLS handshake failed");
}

async fn pause(error: io::Error) {
    let is_of_the_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    );
    if !is_of_the_client {
        tracing::warn!(%error, "accepting a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let connection = self.next().await;
        // A peer that has already left has no address.
        let remote = connection.peer().remote.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        (connection, remote)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Listener>> for super::Peer {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Listener>) -> Self {
        stream.io().peer().clone()
    }
}
