//! PostgreSQL's wire protocol over the querier: read-only SQL for psql, drivers and Grafana.
//!
//! Each connection is one task. Statements are planned and run as SQL over HTTP is, within the same limits; a cancel request, a
//! time-out or a client that leaves ends them. The protocol's messages are read and written here (`wire`): a running statement needs
//! its socket watched, and whatever a client sends must be refused, not panicked over.
//!
//! The database that a client names is its tenant, or `-c tenant=…` in its options is. TLS and passwords come before
//! the session (`gate`).

mod catalog;
mod cells;
mod connection;
mod encode;
mod error;
mod functions;
mod gate;
mod params;
mod rewrite;
mod run;
mod session;
mod types;
mod wire;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use sextant_model::TenantId;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

pub use self::gate::Gate;
pub(crate) use self::rewrite::refuse_deep;
use self::{
    connection::{Ended, Stop},
    error::PgError,
    run::Scope,
};
use crate::{engine::Querier, flight::TenantResolver};

/// Connections at once.
const CONNECTIONS_MAX: usize = 1000;
/// Time until a client has said who it is.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// What connections share.
struct Shared {
    querier: Querier,
    tenants: TenantResolver,
    gate: Gate,
    next_pid: AtomicI32,
    running: Mutex<HashMap<i32, (i32, Arc<Stop>)>>,
    stopping: watch::Receiver<bool>,
}

/// A connection's place among those that may be cancelled.
struct Place {
    shared: Arc<Shared>,
    pid: i32,
    secret: i32,
    stop: Arc<Stop>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.running.lock().remove(&self.pid);
    }
}

impl Shared {
    fn register(self: &Arc<Self>, pid: i32) -> Option<Place> {
        let (secret, stop) = (rand::random::<i32>(), Arc::new(Stop::default()));
        let mut running = self.running.lock();
        if running.len() >= CONNECTIONS_MAX {
            return None;
        }
        running.insert(pid, (secret, stop.clone()));
        drop(running);
        Some(Place { shared: self.clone(), pid, secret, stop })
    }

    fn cancel(&self, pid: i32, secret: i32) {
        let stop = self.running.lock().get(&pid).filter(|(s, _)| *s == secret).map(|(_, stop)| stop.clone());
        if let Some(stop) = stop {
            stop.ask();
        }
    }

    /// Who a client is and whose data it reads.
    fn scope(&self, parameters: &BTreeMap<String, String>) -> Result<Scope, PgError> {
        let named = |name: &str| parameters.get(name).filter(|v| !v.is_empty()).cloned();
        let user = named("user")
            .ok_or_else(|| PgError::fatal("28000", "no PostgreSQL user name specified in startup packet"))?;
        let database = named("database").unwrap_or_else(|| user.clone());
        let options = options(parameters.get("options").map_or("", String::as_str));
        let tenant = options.iter().find(|(n, _)| n == "tenant").map_or(database.as_str(), |(_, v)| v);
        let tenants: Vec<TenantId> = (self.tenants)(Some(tenant)).map_err(|e| {
            PgError::fatal("3D000", format!("tenant \"{tenant}\": {e}"))
                .with_hint("Name the tenant as the database, or with options='-c tenant=NAME'.")
        })?;
        Ok(Scope {
            querier: self.querier.clone(),
            tenants: tenants.into(),
            database,
            user,
            settings: Vec::new(),
            pid: self.next_pid.fetch_add(1, Ordering::Relaxed),
            timeout: self.querier.config().timeout,
        })
    }
}

/// The settings in a client's `options`: `-c name=value` and `--name=value`, a backslash before what is to be taken as it is.
fn options(text: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, words.last_mut()) {
            ('\\', Some(word)) => word.extend(chars.next()),
            (c, _) if c.is_whitespace() => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            _ => {}
        }
    }
    let mut words = words.into_iter().filter(|w| !w.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.as_str() {
            "-c" => words.next().unwrap_or_default(),
            _ => word.trim_start_matches("--").trim_start_matches("-c").to_owned(),
        };
        if let Some((name, value)) = setting.split_once('=') {
            settings.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    settings
}

/// Serves clients until `stopping` says so; statements that run then are answered first.
pub async fn serve(
    listener: TcpListener,
    querier: Querier,
    tenants: TenantResolver,
    gate: Gate,
    mut stopping: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let shared = Arc::new(Shared {
        querier,
        tenants,
        gate,
        next_pid: AtomicI32::new(1),
        running: Mutex::default(),
        stopping: stopping.clone(),
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let shared = shared.clone();
                    connections.spawn(async move {
                        match connection::serve(shared, stream).await {
                            Ok(()) | Err(Ended::Left) => {}
                            Err(Ended::Tls(e)) => tracing::debug!(%peer, error = %e, "a PostgreSQL client's handshake failed"),
                            Err(Ended::Io(e)) => tracing::debug!(%peer, error = %e, "a PostgreSQL connection broke"),
                        }
                    });
                }
                Err(e) => {
                    tracing::warn!(error = %e, "accepting a PostgreSQL connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(e) = ended && e.is_panic() {
                    tracing::error!(error = %e, "a PostgreSQL connection's task failed");
                }
            }
            () = async { let _ = stopping.wait_for(|s| *s).await; } => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::options;

    #[test]
    fn options_are_read() {
        let of = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(
            options("-c tenant=a|b --statement-timeout=5s -cx=1"),
            [of("tenant", "a|b"), of("statement_timeout", "5s"), of("x", "1")]
        );
        assert_eq!(options(r"-c application_name=a\ b"), [of("application_name", "a b")]);
        assert!(options("").is_empty());
    }
}
