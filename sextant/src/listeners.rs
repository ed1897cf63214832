//! Opening the listeners: an address that is taken is an error that names it and its key.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::net::TcpListener;

use crate::config::{Config, Listen};

/// A bound listener.
pub struct Bound {
    /// What it serves, for people.
    pub name: &'static str,
    /// Its address, with the real port.
    pub address: SocketAddr,
    /// The socket.
    pub socket: TcpListener,
}

/// Binds the listener of a key; `None` where it is off.
pub async fn bind(config: &Config, key: &'static str, name: &'static str) -> Result<Option<Bound>> {
    let Listen::At(address) = config.listen(key) else { return Ok(None) };
    let socket = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({key}, {name})"))?;
    let address = socket.local_addr().with_context(|| format!("address of {key}"))?;
    Ok(Some(Bound { name, address, socket }))
}
