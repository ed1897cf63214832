//! TLS and credentials of the listeners, as configured: off unless files are named.

use std::{io::BufRead, net::IpAddr, sync::Arc};

use anyhow::{Context, Result, bail};
use sextant_security::{Authenticator, Part, SecurityMetrics, ServerTls, TlsFiles, Watcher, hash_password};

use crate::{cluster::ClusterTls, config::Config, listeners::Bound};

/// A longer password is not looked at when a client sends it.
const PASSWORD_BYTES_MAX: usize = 1024;

/// What the listeners share.
pub struct Security {
    /// TLS; `None` where connections are plain.
    pub tls: Option<ServerTls>,
    /// Tells who sent a request.
    pub authenticator: Authenticator,
    /// What is counted.
    pub metrics: Arc<SecurityMetrics>,
    /// TLS between roles.
    pub cluster: ClusterTls,
    /// Reads files again; `None` where there are none.
    pub watcher: Option<Watcher>,
}

impl Security {
    /// Reads certificates, keys and credentials; what is wrong is an error that names the key and the file.
    pub fn open(config: &Config) -> Result<Self> {
        let metrics = Arc::new(SecurityMetrics::default());
        let tls = tls_files(config)
            .map(|files| ServerTls::open(Part::ListenerTls, files, metrics.clone()).context("tls"))
            .transpose()?;
        let authenticator = match config.optional("auth.file") {
            Some(path) => Authenticator::open(path.into(), metrics.clone()).context("auth.file")?,
            None => Authenticator::open_to_all(),
        };
        let cluster = ClusterTls::open(config, &metrics)?;
        let servers = tls.iter().chain(&cluster.server).map(ServerTls::reload);
        let clients = cluster.client.iter().map(|c| c.reload());
        let parts: Vec<_> = servers.chain(clients).chain(authenticator.reload()).collect();
        let watcher = (!parts.is_empty()).then(|| {
            let every = Watcher::new(config.duration("security.reload_interval"));
            parts.into_iter().fold(every, Watcher::with)
        });
        Ok(Self { tls, authenticator, metrics, cluster, watcher })
    }

    /// The same of the listener for other roles, which knows no credentials but certificates.
    pub fn warn_of_cluster(&self, bound: Option<&Bound>) {
        if let Some(bound) = bound.filter(|b| self.cluster.server.is_none() && !b.address.ip().is_loopback())
        {
            let address = bound.address;
            tracing::warn!(%address, "whoever reaches cluster.listen may read and write everything: it has no TLS (cluster_tls)");
        }
    }

    /// Tells the operator of a listener that others than this machine can reach, and that does not protect what it serves.
    pub fn warn_of(&self, bound: &Bound) {
        if let Some(why) =
            exposure(bound.address.ip(), self.tls.is_some(), self.authenticator.is_open_to_all())
        {
            tracing::warn!(listener = bound.name, address = %bound.address, "{why}");
        }
    }
}

/// What others can do to a listener; `None` where it is of this machine only, or protected.
fn exposure(ip: IpAddr, has_tls: bool, is_open_to_all: bool) -> Option<&'static str> {
    match (has_tls, is_open_to_all) {
        _ if ip.to_canonical().is_loopback() => None,
        (true, _) => None,
        (false, true) => Some(
            "whoever reaches this listener may read and write everything: it has neither TLS nor credentials (tls.cert_file, auth.file)",
        ),
        (false, false) => Some(
            "credentials and data can be read on the way to this listener: it has no TLS (tls.cert_file)",
        ),
    }
}

fn tls_files(config: &Config) -> Option<TlsFiles> {
    Some(TlsFiles {
        cert: config.optional("tls.cert_file")?.into(),
        key: config.optional("tls.key_file")?.into(),
        client_ca: config.optional("tls.client_ca_file").map(Into::into),
        require_client_cert: config.flag("tls.require_client_cert"),
    })
}

/// The line of the file of credentials for the password that the first line of `input` is.
pub fn password_hash_line(mut input: impl BufRead) -> Result<String> {
    let mut password = String::new();
    input.read_line(&mut password).context("read a password from the standard input")?;
    let password = password.strip_suffix('\n').unwrap_or(&password);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        bail!("the password, the first line of the standard input, is empty");
    }
    if password.len() > PASSWORD_BYTES_MAX {
        bail!("the password is longer than {PASSWORD_BYTES_MAX} bytes");
    }
    let hash = hash_password(password).map_err(|_| anyhow::anyhow!("the password cannot be hashed"))?;
    // In quotes: in a flow mapping its commas would end it.
    Ok(format!("password_hash: '{hash}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprotected_listeners_are_told_of() {
        for (ip, has_tls, is_open, part) in [
            ("127.0.0.1", false, true, None),
            ("::1", false, true, None),
            ("::ffff:127.0.0.1", false, true, None),
            ("0.0.0.0", false, true, Some("neither TLS nor credentials")),
            ("::", false, true, Some("neither TLS nor credentials")),
            ("192.0.2.1", false, false, Some("it has no TLS")),
            ("192.0.2.1", true, true, None),
            ("192.0.2.1", true, false, None),
        ] {
            let why = exposure(ip.parse().unwrap(), has_tls, is_open);
            assert_eq!(why.is_some(), part.is_some(), "{ip}: {why:?}");
            assert!(why.unwrap_or_default().contains(part.unwrap_or_default()), "{ip}: {why:?}");
        }
    }

    #[test]
    fn passwords_are_hashed() {
        let line = password_hash_line(&b"pass word\r\nmore"[..]).unwrap();
        assert!(line.starts_with("password_hash: '$argon2id$v=19$m=") && line.ends_with('\''), "{line}");
        assert_ne!(line, password_hash_line(&b"pass word"[..]).unwrap(), "each has its own salt");
        assert!(password_hash_line(&b"\n"[..]).is_err());
        assert!(password_hash_line(&[b'a'; 1025][..]).is_err());
    }
}
