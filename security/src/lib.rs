//! Who may do what: TLS of listeners and between roles, credentials, rights and tenants.
//!
//! **Architecture Invariant:** no secret leaves this crate: not in an error, a log line or `Debug`. Decisions are made before a
//! handler sees the request; what no rule allows is refused.

mod credentials;
mod error;
mod identity;
mod layer;
mod metrics;
mod reload;
mod routes;
mod tenants;
mod tls;

pub use credentials::{Authenticator, hash_password};
pub use error::{AuthError, AuthFileError, TlsError};
pub use identity::{Identity, Right, TenantScope};
pub use layer::{GrpcAuth, GrpcAuthLayer, HttpAuth, HttpAuthLayer, RoleLayer, RoleService};
pub use metrics::{Part, SecurityMetrics};
pub use reload::{Reload, Watcher};
pub use routes::{Access, access};
pub use tenants::{TENANT_HEADER, named_tenants};
pub use tls::{
    ClientTls, ClientTlsFiles, Connection, Connector, HANDSHAKE_TIMEOUT, Listener, ListenerOptions, Peer,
    PeerIdentity, Protocol, Role, ServerTls, TlsFiles,
};
