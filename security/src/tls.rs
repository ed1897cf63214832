//! TLS of listeners and of connections between roles: rustls, with ring as its only cryptography.
//!
//! Certificates, keys and authorities are read again while the process runs. Connections that are open keep what they
//! agreed on; each new one takes what is in force. Sessions are not resumed where peers are verified, so that a certificate
//! or an authority that was taken away opens no further connection.

mod client;
mod connection;
mod files;
mod listener;
mod peer;
mod server;

pub use self::{
    client::{ClientTls, ClientTlsFiles, Connector},
    connection::{Connection, Peer},
    listener::{Listener, ListenerOptions},
    peer::{PeerIdentity, Role},
    server::{ServerTls, TlsFiles},
};

/// Time for a TLS handshake.
pub const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What is spoken on a listener; decides what is offered by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 and HTTP/1.1.
    Http,
    /// HTTP/2 only.
    Grpc,
    /// PostgreSQL. libpq names its protocol from version 17 on, and refusing it would refuse the connection.
    Postgres,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Http, Self::Grpc, Self::Postgres];

    fn alpn(self) -> Vec<Vec<u8>> {
        let names: &[&str] = match self {
            Self::Http => &["h2", "http/1.1"],
            Self::Grpc => &["h2"],
            Self::Postgres => &["postgresql"],
        };
        names.iter().map(|n| n.as_bytes().to_vec()).collect()
    }
}
