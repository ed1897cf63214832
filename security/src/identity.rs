//! Who sent a request and what that allows: rights and tenants.

use std::{fmt, str::FromStr, sync::Arc};

use sextant_model::TenantId;

use crate::error::AuthError;

/// What a request needs. No right includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Queries, and what describes data.
    Read,
    /// Sends data.
    Write,
    /// Flushes, deletes, drains.
    Admin,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// Its name in the file of credentials.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Right {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|r| r.as_str() == name).ok_or(())
    }
}

/// Whose data a credential is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantScope {
    /// Every tenant, also those that do not exist yet.
    All,
    /// These.
    Only(Vec<TenantId>),
}

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    name: String,
    rights: Vec<Right>,
    tenants: TenantScope,
}

/// The owner of a credential. Layers put it into a request's extensions. It has no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(Arc<Inner>);

impl Identity {
    /// An identity with a name for logs.
    pub fn new(name: &str, rights: Vec<Right>, tenants: TenantScope) -> Self {
        Self(Arc::new(Inner { name: name.to_owned(), rights, tenants }))
    }

    /// May do everything: where no credentials are configured.
    pub fn everyone() -> Self {
        Self::new("everyone", Right::ALL.to_vec(), TenantScope::All)
    }

    /// The name of its credential.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whose data it is for.
    pub fn tenants(&self) -> &TenantScope {
        &self.0.tenants
    }

    /// Whether it has the right, for whatever tenants.
    pub fn require(&self, right: Right) -> Result<(), AuthError> {
        if self.0.rights.contains(&right) { Ok(()) } else { Err(AuthError::NoRight(right)) }
    }

    /// Whether it has the right for each of the tenants, of which there must be at least one.
    pub fn authorize(&self, right: Right, tenants: &[TenantId]) -> Result<(), AuthError> {
        self.require(right)?;
        if tenants.is_empty() {
            return Err(AuthError::NoTenant);
        }
        let TenantScope::Only(own) = &self.0.tenants else { return Ok(()) };
        match tenants.iter().find(|t| !own.contains(t)) {
            None => Ok(()),
            Some(other) => Err(AuthError::OtherTenant { right, tenant: other.clone() }),
        }
    }

    /// Whether it has the right for every tenant: what shows or changes the process as a whole.
    pub fn authorize_all(&self, right: Right) -> Result<(), AuthError> {
        self.require(right)?;
        match self.0.tenants {
            TenantScope::All => Ok(()),
            TenantScope::Only(_) => Err(AuthError::NotAllTenants(right)),
        }
    }

    /// The tenant of a request that names none: the only one that the credential is for.
    pub fn default_tenant(&self) -> Option<&TenantId> {
        match &self.0.tenants {
            TenantScope::Only(own) if own.len() == 1 => own.first(),
            _ => None,
        }
    }
}
