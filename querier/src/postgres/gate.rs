//! What comes before a session: TLS, and the client's password.
//!
//! The steps are those of "SSL Session Encryption" and "Start-up" in PostgreSQL's manual. Passwords are asked for in clear, because
//! the file of credentials has only their hashes and SCRAM needs keys of its own: they are taken over TLS or from this machine.

use bytes::BytesMut;
use sextant_model::TenantId;
use sextant_security::{
    AuthError, Authenticator, Connection as Socket, Identity, Protocol, Right, ServerTls,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    connection::{Ended, Failure},
    error::PgError,
    wire::{self, Answers, Opening},
};

/// What the listener asks of clients.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Where there is some, sessions are over TLS only.
    pub tls: Option<ServerTls>,
    /// Tells who a user with a password is.
    pub authenticator: Authenticator,
}

impl Gate {
    /// Reads what a client opens with, in TLS where it is offered. A client that is refused is told why.
    pub(super) async fn open(&self, mut stream: TcpStream) -> Result<(Socket, BytesMut, Opening), Ended> {
        let mut inbox = BytesMut::new();
        let first = match opening(&mut stream, &mut inbox, self.tls.is_some()).await {
            Ok(first) => first,
            Err(failure) => return Err(turn_away(stream, failure).await),
        };
        let Some(tls) = &self.tls else { return Ok((Socket::plain(stream), inbox, first)) };
        match first {
            Opening::Tls if inbox.is_empty() => {}
            // Whoever is on the way could have put them there, to be taken for the client's (CVE-2021-23214).
            Opening::Tls => {
                let e = PgError::fatal("08P01", "received unencrypted data after SSL request");
                return Err(turn_away(stream, e.into()).await);
            }
            Opening::Startup { .. } => {
                let e = PgError::fatal("28000", "this listener speaks TLS only")
                    .with_hint("Connect with sslmode=require or, better, sslmode=verify-full.");
                return Err(turn_away(stream, e.into()).await);
            }
            // Clients send these without TLS; their secret is for one connection.
            other => return Ok((Socket::plain(stream), inbox, other)),
        }
        stream.write_all(b"S").await?;
        let mut stream = tls.accept(stream, Protocol::Postgres).await.map_err(Ended::Tls)?;
        match opening(&mut stream, &mut inbox, false).await {
            Ok(opening) => Ok((stream, inbox, opening)),
            Err(failure) => Err(turn_away(stream, failure).await),
        }
    }

    /// Asks for the user's password.
    pub(super) async fn authenticate(
        &self,
        stream: &mut Socket,
        inbox: &mut BytesMut,
        user: &str,
    ) -> Result<Identity, Failure> {
        if self.authenticator.is_open_to_all() {
            return Ok(Identity::everyone());
        }
        let peer = stream.peer();
        let is_near = peer.remote.is_some_and(|remote| remote.ip().to_canonical().is_loopback());
        if !peer.is_tls && !is_near {
            let e =
                PgError::fatal("28000", "passwords are taken over TLS only, except from the machine itself")
                    .with_hint("The operator sets tls.cert_file and tls.key_file.");
            return Err(e.into());
        }
        let mut out = Answers::default();
        out.authentication_cleartext_password();
        stream.write_all(&out.bytes).await?;
        stream.flush().await?;
        let password = loop {
            match wire::password(inbox).map_err(PgError::from)? {
                Some(password) => break password,
                None => {
                    if stream.read_buf(inbox).await? == 0 {
                        return Err(Ended::Left.into());
                    }
                }
            }
        };
        let checked = self.authenticator.check_password(user, &password).await;
        checked.map_err(|error| {
            self.authenticator.decided(Some(&error));
            let refusal = match error {
                AuthError::Busy => PgError::fatal("53300", error.to_string()),
                _ => PgError::fatal("28P01", format!("password authentication failed for user \"{user}\"")),
            };
            refusal.into()
        })
    }

    /// Whether the user may read these tenants.
    pub(super) fn authorize(&self, identity: &Identity, tenants: &[TenantId]) -> Result<(), PgError> {
        let decided = identity.authorize(Right::Read, tenants);
        self.authenticator.decided(decided.as_ref().err());
        decided.map_err(|error| {
            tracing::debug!(credential = identity.name(), %error, "a PostgreSQL session is refused");
            PgError::fatal("42501", error.to_string())
        })
    }
}

/// Reads what a client opens with. Encryption that is not offered is declined, whereupon the client goes on or leaves.
async fn opening<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    inbox: &mut BytesMut,
    offers_tls: bool,
) -> Result<Opening, Failure> {
    loop {
        match wire::opening(inbox).map_err(PgError::from)? {
            Some(Opening::Tls) if offers_tls => return Ok(Opening::Tls),
            Some(Opening::Tls | Opening::Gssapi) => {
                stream.write_all(b"N").await?;
                stream.flush().await?;
            }
            Some(opening) => return Ok(opening),
            None => {
                if stream.read_buf(inbox).await? == 0 {
                    return Err(Ended::Left.into());
                }
            }
        }
    }
}

/// Says why there is no session.
pub(super) async fn refuse(mut stream: impl AsyncWrite + Unpin, error: &PgError) -> Result<(), Ended> {
    let mut out = Answers::default();
    out.report(b'E', &PgError { fatal: true, ..error.clone() }.fields());
    stream.write_all(&out.bytes).await?;
    stream.shutdown().await?;
    Ok(())
}

/// How a connection ends that became no session; the client is told.
pub(super) async fn turn_away(stream: impl AsyncWrite + Unpin, failure: Failure) -> Ended {
    match failure {
        Failure::Ended(ended) => ended,
        Failure::Error(error) => refuse(stream, &error).await.err().unwrap_or(Ended::Left),
    }
}
