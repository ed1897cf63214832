//! Tenant ids: part of object paths, so their alphabet is restricted where they are made.

use std::{fmt, sync::Arc};

/// A validated tenant id: 1 to 150 characters of `[A-Za-z0-9!\-_.*'()]`, not `.` or `..`, never starting with
/// `__` (reserved), as in Grafana Mimir's documentation of `X-Scope-OrgID`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// Why a text is not a tenant id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// The id is empty.
    #[error("tenant id is empty")]
    Empty,
    /// The id has more than 150 bytes.
    #[error("tenant id is longer than 150 characters")]
    TooLong,
    /// The id has a character that may not stand in it.
    #[error("tenant id {id:?} contains the unsupported character {bad:?}")]
    BadCharacter {
        /// The id as given.
        id: String,
        /// The first character that is not allowed.
        bad: char,
    },
    /// The id is a path component with a meaning of its own, or reserved.
    #[error("tenant id {0:?} is reserved")]
    Reserved(String),
}

impl TenantId {
    /// Checks and takes a tenant id.
    pub fn new(id: &str) -> Result<Self, TenantError> {
        if id.is_empty() {
            return Err(TenantError::Empty);
        }
        if id.len() > 150 {
            return Err(TenantError::TooLong);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
        if let Some(bad) = id.chars().find(|&c| !allowed(c)) {
            return Err(TenantError::BadCharacter { id: id.to_owned(), bad });
        }
        if id == "." || id == ".." || id.starts_with("__") {
            return Err(TenantError::Reserved(id.to_owned()));
        }
        Ok(Self(id.into()))
    }

    /// The tenant everything belongs to while multi-tenancy is off.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_paths_are_refused() {
        for bad in ["", ".", "..", "a/b", "../x", "a b", "__system", "é"] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "team-1", "t1700000000", "A.b_c!*'()"] {
            assert_eq!(TenantId::new(good).unwrap().as_str(), good);
        }
    }
}
