//! One type for plain and TLS connections, so that listeners have one path.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use super::peer::PeerIdentity;

/// A connection, plain or TLS.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where a connection comes from, and who is there. Handlers find it among a request's extensions.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The own address.
    pub local: Option<SocketAddr>,
    /// The other side's address.
    pub remote: Option<SocketAddr>,
    /// Whether nobody on the way can read it.
    pub is_tls: bool,
    /// What the other side's certificate says; `None` without one.
    pub identity: Option<Arc<PeerIdentity>>,
}

impl Connection {
    /// A connection without TLS.
    pub fn plain(stream: TcpStream) -> Self {
        let peer = Peer { is_tls: false, ..Peer::at(&stream) };
        Self { stream: Stream::Plain(stream), peer }
    }

    pub(super) fn of_server(stream: tokio_rustls::server::TlsStream<TcpStream>) -> Self {
        Self::tls(TlsStream::Server(stream))
    }

    pub(super) fn of_client(stream: tokio_rustls::client::TlsStream<TcpStream>) -> Self {
        Self::tls(TlsStream::Client(stream))
    }

    fn tls(stream: TlsStream<TcpStream>) -> Self {
        let (socket, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let identity = certificate.map(|c| Arc::new(PeerIdentity::of(c)));
        let peer = Peer { is_tls: true, identity, ..Peer::at(socket) };
        Self { stream: Stream::Tls(Box::new(stream)), peer }
    }

    /// Who is on the other side.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The socket under it, for its options and addresses.
    pub fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl Peer {
    fn at(socket: &TcpStream) -> Self {
        Self { local: socket.local_addr().ok(), remote: socket.peer_addr().ok(), ..Self::default() }
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
