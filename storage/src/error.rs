//! What can go wrong with the bucket, classed by what the caller must do.

use sextant_proto::{ErrorClass, fault::InjectedFault};

/// An error of the storage layer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The object store did not answer or refused for now. Repeat later; nothing is known of a write that failed so,
    /// and every write of this crate may be repeated.
    #[error("object store: {action} {object}: {reason}")]
    Unavailable {
        /// `get`, `put`, `list`, `delete`.
        action: &'static str,
        /// The object's path.
        object: String,
        /// What the store said.
        reason: String,
    },
    /// An object that a manifest names is not there. The manifest in use may be older than the grace time: load the
    /// newest one and repeat; if that one names it too, data is lost and a person must act.
    #[error("object {object} does not exist")]
    Missing {
        /// The object's path.
        object: String,
    },
    /// Stored bytes are not what was written. Never repeated, never worked around: a person must act.
    #[error("object {object} is corrupt{}: {reason}", .chunk.map(|c| format!(" in chunk {c}")).unwrap_or_default())]
    Corrupt {
        /// The object's path.
        object: String,
        /// The chunk (see [`crate::CHUNK_BYTES`]) whose checksum does not match, where the check is by chunk.
        chunk: Option<u32>,
        /// What does not match.
        reason: String,
    },
    /// The manifest no longer is what the change was made for (blocks of a job are gone, a position went backwards).
    /// Plan again from the newest manifest.
    #[error("manifest of tenant {tenant}: {reason}")]
    Stale {
        /// Whose manifest.
        tenant: String,
        /// What is not as expected.
        reason: String,
    },
    /// Others changed the manifest faster than this writer could, many times in a row. Repeat later.
    #[error("manifest of tenant {tenant}: gave up after {attempts} conflicting writes")]
    Contended {
        /// Whose manifest.
        tenant: String,
        /// How many writes lost.
        attempts: u32,
    },
    /// A read is larger than its limit allows. The reader must narrow it or raise the limit.
    #[error("the query needs more than the limit of {limit} {what} per block selection")]
    Limit {
        /// `series` or `samples`.
        what: &'static str,
        /// The limit's value.
        limit: usize,
    },
    /// The caller gave something that cannot be stored or opened: a URL, series out of order. A fault of the program
    /// or its configuration.
    #[error("{0}")]
    Invalid(String),
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] InjectedFault),
}

impl StorageError {
    /// What a caller over the network is told.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable { .. } | Self::Missing { .. } | Self::Contended { .. } | Self::Stale { .. } => {
                ErrorClass::Unavailable
            }
            Self::Fault(_) => ErrorClass::Unavailable,
            Self::Limit { .. } => ErrorClass::Unprocessable,
            Self::Corrupt { .. } | Self::Invalid(_) => ErrorClass::Internal,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Contended { .. } | Self::Fault(_))
    }

    pub(crate) fn corrupt(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Corrupt { object: object.into(), chunk: None, reason: reason.into() }
    }

    pub(crate) fn store(action: &'static str, object: &str, e: object_store::Error) -> Self {
        match e {
            object_store::Error::NotFound { .. } => Self::Missing { object: object.to_owned() },
            e => Self::Unavailable { action, object: object.to_owned(), reason: e.to_string() },
        }
    }
}

/// A result of the storage layer.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;
