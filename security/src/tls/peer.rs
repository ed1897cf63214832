//! Who the other side of a connection is: the roles that its certificate names.
//!
//! A role is a subject alternative name of type URI, `sextant://role/ingester`. A certificate may have several. Names of
//! type DNS are not looked at: `ingester.sextant` is also what Kubernetes calls a service of that name in the namespace
//! `sextant`, and whoever may have a certificate for it would have the role.

use std::{fmt, str::FromStr};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer, X509Certificate},
};

const ROLE_URI: &str = "sextant://role/";

/// What a process of the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Collects on a node.
    Agent,
    /// Takes writes.
    Distributor,
    /// Holds recent data.
    Ingester,
    /// Merges blocks.
    Compactor,
    /// Answers queries.
    Querier,
    /// Evaluates rules.
    Ruler,
    /// A person's commands: drain, status.
    Operator,
}

impl Role {
    const ALL: [Self; 7] = [
        Self::Agent,
        Self::Distributor,
        Self::Ingester,
        Self::Compactor,
        Self::Querier,
        Self::Ruler,
        Self::Operator,
    ];

    /// Its name in certificates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Distributor => "distributor",
            Self::Ingester => "ingester",
            Self::Compactor => "compactor",
            Self::Querier => "querier",
            Self::Ruler => "ruler",
            Self::Operator => "operator",
        }
    }

    /// The name of type URI that gives a certificate the role.
    pub fn uri(self) -> String {
        format!("{ROLE_URI}{}", self.as_str())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|r| r.as_str() == name).ok_or(())
    }
}

/// What a verified certificate says of its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its subject, for logs.
    pub subject: String,
    /// Its roles, sorted. Roles that this version does not know are left out.
    pub roles: Vec<Role>,
}

impl PeerIdentity {
    /// Reads a certificate, which must have been verified. What cannot be read gives no role.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Self::default() };
        let mut roles: Vec<Role> = parsed
            .extensions()
            .iter()
            .filter_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })
            .flatten()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix(ROLE_URI)?.parse().ok(),
                _ => None,
            })
            .collect();
        roles.sort();
        roles.dedup();
        Self { subject: parsed.subject().to_string(), roles }
    }

    /// Whether it has one of these roles.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|r| self.roles.contains(r))
    }
}

/// When a certificate expires, Unix seconds.
pub(super) fn expires_at_s(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}
