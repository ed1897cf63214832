//! What can be wrong with files, handshakes and credentials. No text here ever has a secret in it.

use std::path::PathBuf;

use sextant_model::{TenantError, TenantId};
use sextant_proto::ErrorClass;

use crate::{identity::Right, tls::Role};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credential, or one that is not known. Deliberately does not say which.
    #[error("valid credentials are required")]
    Unauthenticated,
    /// The request names no tenant and its credential does not have exactly one.
    #[error("no org id: the header X-Scope-OrgID is required")]
    NoTenant,
    /// The header's tenants are not tenant ids.
    #[error("X-Scope-OrgID: {0}")]
    BadTenant(#[from] TenantError),
    /// `X-Scope-OrgID` is there more than once, or is not text.
    #[error("the header X-Scope-OrgID must be there once, as text")]
    MalformedTenants,
    /// The credential does not have the right at all.
    #[error("these credentials do not have the right {0}")]
    NoRight(Right),
    /// The credential is not for this tenant.
    #[error("these credentials are not for tenant {tenant} (right {right})")]
    OtherTenant {
        /// The right that the request needs.
        right: Right,
        /// The first of the request's tenants that the credential is not for.
        tenant: TenantId,
    },
    /// What concerns the whole process needs a credential for all tenants.
    #[error("the right {0} is needed for all tenants")]
    NotAllTenants(Right),
    /// No rule says which right the path needs.
    #[error("no right allows this method and path")]
    UnknownPath,
    /// A call between roles without a certificate of the cluster's authority.
    #[error("a client certificate of the cluster's authority is required")]
    NoCertificate,
    /// A call between roles with a certificate for another role.
    #[error("the client certificate does not have a role that may do this; it needs one of {}", names(.0))]
    NoRole(Vec<Role>),
    /// Too many passwords are waiting to be checked.
    #[error("too many passwords are being checked; repeat later")]
    Busy,
}

fn names(roles: &[Role]) -> String {
    roles.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", ")
}

impl AuthError {
    /// What the caller must do.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Unauthenticated
            | Self::NoTenant
            | Self::BadTenant(_)
            | Self::MalformedTenants
            | Self::NoCertificate => ErrorClass::Unauthenticated,
            Self::NoRight(_)
            | Self::OtherTenant { .. }
            | Self::NotAllTenants(_)
            | Self::UnknownPath
            | Self::NoRole(_) => ErrorClass::Forbidden,
            Self::Busy => ErrorClass::Unavailable,
        }
    }

    /// Values of `WWW-Authenticate` (RFC 9110, 11.6.1), where credentials would help. `Basic` is first: browsers ask for it.
    pub const fn challenges(&self) -> &'static [&'static str] {
        match self {
            Self::Unauthenticated => {
                &["Basic realm=\"sextant\", charset=\"UTF-8\"", "Bearer realm=\"sextant\""]
            }
            _ => &[],
        }
    }
}

/// Why certificates and keys cannot be used, or a connection could not be secured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file does not have what it should.
    #[error("{}: {reason}", .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is missing. Never a part of the file.
        reason: &'static str,
    },
    /// Certificate, key and authority do not fit together.
    #[error("{}: {reason}", .path.display())]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// A setting that is not a server's name.
    #[error("{0:?} is not a server name")]
    ServerName(String),
    /// The connection or its handshake failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Nothing was agreed on in time.
    #[error("the handshake took longer than {0:?}")]
    TimedOut(std::time::Duration),
    /// The server's certificate is not for the role that was asked for.
    #[error("the server's certificate does not have the role {0}")]
    WrongRole(Role),
}

/// Why the file of credentials cannot be used. Entries are named by position and name; values are never shown.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// It, or a token's file, cannot be read.
    #[error("{}: {error}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// An entry, or the file as a whole, is wrong.
    #[error("{}: {place}: {reason}", .path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// The entry, such as `credentials[2] "grafana"`.
        place: String,
        /// What is wrong.
        reason: String,
    },
}
