//! What this crate counts.

use std::{
    fmt::Write,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
};

use sextant_proto::ErrorClass;

/// What is read again while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Certificate and key of the listeners that clients use.
    ListenerTls,
    /// Certificate, key and authority of the listeners that other roles use.
    ClusterServerTls,
    /// Certificate, key and authority of connections to other roles.
    ClusterClientTls,
    /// The file of credentials.
    Credentials,
}

impl Part {
    const ALL: [Self; 4] =
        [Self::ListenerTls, Self::ClusterServerTls, Self::ClusterClientTls, Self::Credentials];

    /// Its name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ListenerTls => "listener_tls",
            Self::ClusterServerTls => "cluster_server_tls",
            Self::ClusterClientTls => "cluster_client_tls",
            Self::Credentials => "credentials",
        }
    }
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    Ok,
    Failed,
    TimedOut,
}

#[derive(Debug, Default)]
struct PartMetrics {
    has_failed: AtomicBool,
    loaded_at_s: AtomicU64,
    expires_at_s: AtomicI64,
}

/// Counters and gauges of one process.
#[derive(Debug, Default)]
pub struct SecurityMetrics {
    handshakes: [AtomicU64; 3],
    pub(crate) handshakes_running: AtomicU64,
    requests: [AtomicU64; 4],
    pub(crate) password_hashes: AtomicU64,
    parts: [PartMetrics; 4],
}

impl SecurityMetrics {
    pub(crate) fn handshake(&self, ended: Handshake) {
        self.handshakes[ended as usize].fetch_add(1, Relaxed);
    }

    /// Counts a decision: `None` where the request was let through.
    pub(crate) fn request(&self, refused: Option<ErrorClass>) {
        let at = match refused {
            None => 0,
            Some(ErrorClass::Forbidden) => 2,
            Some(ErrorClass::Unavailable) => 3,
            Some(_) => 1,
        };
        self.requests[at].fetch_add(1, Relaxed);
    }

    pub(crate) fn loaded(&self, part: Part, now_s: u64) {
        self.parts[part as usize].has_failed.store(false, Relaxed);
        self.parts[part as usize].loaded_at_s.store(now_s, Relaxed);
    }

    pub(crate) fn refused(&self, part: Part) {
        self.parts[part as usize].has_failed.store(true, Relaxed);
    }

    pub(crate) fn expires(&self, part: Part, at_s: i64) {
        self.parts[part as usize].expires_at_s.store(at_s, Relaxed);
    }

    /// Whether what a part's files say is in force.
    pub fn is_current(&self, part: Part) -> bool {
        !self.parts[part as usize].has_failed.load(Relaxed)
    }

    /// Appends Prometheus text.
    pub fn render(&self, out: &mut String) {
        let name = "sextant_security_handshakes_total";
        family(out, name, "counter", "TLS handshakes of listeners by result.");
        for (result, count) in ["ok", "failed", "timed_out"].iter().zip(&self.handshakes) {
            let _ = writeln!(out, "{name}{{result=\"{result}\"}} {}", count.load(Relaxed));
        }
        let name = "sextant_security_handshakes_running";
        family(out, name, "gauge", "TLS handshakes of listeners that have begun and not ended.");
        let _ = writeln!(out, "{name} {}", self.handshakes_running.load(Relaxed));
        let name = "sextant_security_requests_total";
        family(out, name, "counter", "Requests whose credentials were looked at, by result.");
        for (result, count) in ["ok", "unauthenticated", "forbidden", "busy"].iter().zip(&self.requests) {
            let _ = writeln!(out, "{name}{{result=\"{result}\"}} {}", count.load(Relaxed));
        }
        let name = "sextant_security_password_hashes_total";
        family(out, name, "counter", "Passwords that were hashed because no recent answer was known.");
        let _ = writeln!(out, "{name} {}", self.password_hashes.load(Relaxed));
        let name = "sextant_security_reload_successful";
        let help =
            "1 where the files of a part are in force, 0 where they were refused and those before are.";
        family(out, name, "gauge", help);
        for (part, of) in Part::ALL.iter().zip(&self.parts) {
            let value = u8::from(!of.has_failed.load(Relaxed));
            let _ = writeln!(out, "{name}{{part=\"{}\"}} {value}", part.as_str());
        }
        let name = "sextant_security_reload_success_timestamp_seconds";
        family(out, name, "gauge", "When the files of a part were taken last, Unix seconds.");
        for (part, of) in Part::ALL.iter().zip(&self.parts) {
            match of.loaded_at_s.load(Relaxed) {
                0 => {}
                at => _ = writeln!(out, "{name}{{part=\"{}\"}} {at}", part.as_str()),
            }
        }
        let name = "sextant_security_certificate_expiry_timestamp_seconds";
        family(out, name, "gauge", "When the certificate in force of a part expires, Unix seconds.");
        for (part, of) in Part::ALL.iter().zip(&self.parts) {
            match of.expires_at_s.load(Relaxed) {
                0 => {}
                at => _ = writeln!(out, "{name}{{part=\"{}\"}} {at}", part.as_str()),
            }
        }
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
