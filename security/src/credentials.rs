//! Credentials: bearer tokens and users with passwords, from one file that is read again while the process runs.

mod file;
mod header;
mod password;

use std::{fmt, path::PathBuf, sync::Arc};

use http::HeaderMap;

pub use self::password::hash_password;
use self::{
    file::Credentials,
    header::{Presented, presented},
    password::HashingLimits,
};
use crate::{
    error::{AuthError, AuthFileError},
    identity::Identity,
    metrics::{Part, SecurityMetrics},
    reload::{Files, Reload, Reloading},
};

/// A user's name or a password that is longer is not looked at.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Tells who sent a request. Clones share what is in force.
#[derive(Clone)]
pub struct Authenticator(Option<Arc<Inner>>);

struct Inner {
    credentials: Reloading<Credentials>,
    limits: HashingLimits,
    metrics: Arc<SecurityMetrics>,
}

impl Authenticator {
    /// Reads the file of credentials; hand [`Authenticator::reload`] to a [`crate::Watcher`] to have it read again.
    pub fn open(path: PathBuf, metrics: Arc<SecurityMetrics>) -> Result<Self, AuthFileError> {
        let load = move |files: &mut Files| Credentials::load(&path, files);
        let credentials = Reloading::open(Part::Credentials, metrics.clone(), load)?;
        Ok(Self(Some(Arc::new(Inner { credentials, limits: HashingLimits::default(), metrics }))))
    }

    /// Asks for no credentials and allows everything: where no file is configured.
    pub fn open_to_all() -> Self {
        Self(None)
    }

    /// Whether everything is allowed.
    pub fn is_open_to_all(&self) -> bool {
        self.0.is_none()
    }

    /// What a watcher looks at; `None` where there is no file.
    pub fn reload(&self) -> Option<Arc<dyn Reload>> {
        self.0.clone().map(|inner| inner as Arc<dyn Reload>)
    }

    /// Why the file as it is now was refused; `None` where it is in force.
    pub fn last_error(&self) -> Option<String> {
        self.0.as_ref()?.credentials.last_error()
    }

    /// Who sent a request with these headers: `Authorization` with a bearer token or a user and password. Passwords that were
    /// not seen lately are hashed on another thread.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, AuthError> {
        let Some(inner) = &self.0 else { return Ok(Identity::everyone()) };
        match presented(headers).ok_or(AuthError::Unauthenticated)? {
            Presented::Bearer(token) => {
                let found = inner.credentials.current().by_token(&token, None);
                found.ok_or(AuthError::Unauthenticated)
            }
            Presented::Basic { user, password } => self.check_password(&user, &password).await,
        }
    }

    /// Who a user with this password is: a password's entry, or a token's entry that names the user, whose token is then taken
    /// as the password (clients that cannot send bearer tokens).
    pub async fn check_password(&self, user: &str, password: &str) -> Result<Identity, AuthError> {
        let Some(inner) = &self.0 else { return Ok(Identity::everyone()) };
        if user.len() > PASSWORD_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
            return Err(AuthError::Unauthenticated);
        }
        let credentials = inner.credentials.current();
        if let Some(identity) = credentials.by_token(password, Some(user)) {
            return Ok(identity);
        }
        credentials.passwords.clone().check(user, password, &inner.limits, &inner.metrics).await
    }

    /// Counts what was decided about a request; the layers do so themselves.
    pub fn decided(&self, refused: Option<&AuthError>) {
        if let Some(inner) = &self.0 {
            inner.metrics.request(refused.map(AuthError::class));
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("open_to_all", &self.is_open_to_all()).finish_non_exhaustive()
    }
}

impl Reload for Inner {
    fn reload(&self) -> Result<bool, String> {
        self.credentials.reload()
    }
}
