//! One lazily connected channel per address.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};

use super::PlacementView;

/// Makes the channel to an address (`host:port`). It must connect lazily: it is called on the way of a request. It is called
/// again after the connection failed, so that names are resolved and certificates are read anew.
pub type Connect = Arc<dyn Fn(&str) -> Result<Channel, String> + Send + Sync>;

/// HTTP/2 flow-control window of a stream, in bytes: several parts of an answer are on their way while one is decoded. Servers should be
/// built with it too (`initial_stream_window_size`), for batches.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// HTTP/2 flow-control window of a connection, in bytes; see [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// An endpoint with the settings that the client wants: keepalive (a node whose network is cut is noticed within 10 s), a connect
/// timeout of 2 s, no Nagle delay, and windows of several parts. `scheme` is `http` or `https`; add TLS and connect lazily.
pub fn endpoint(scheme: &str, address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"));
    let endpoint = endpoint.map_err(|e| format!("address {address:?}: {e}"))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(10)))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// Connects without TLS.
pub fn plain_connect() -> Connect {
    Arc::new(|address| Ok(endpoint("http", address)?.connect_lazy()))
}

/// A channel, and which of its address's it is.
#[derive(Clone)]
pub(super) struct Line {
    number: u64,
    pub(super) channel: Channel,
}

pub(super) struct Channels {
    connect: Connect,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: HashMap<String, Line>,
    made: u64,
    /// The placement that `lines` were last compared with.
    seen: Weak<PlacementView>,
}

impl Channels {
    pub(super) fn new(connect: Connect) -> Self {
        Self { connect, state: Mutex::default() }
    }

    /// The channel to an address.
    pub(super) fn get(&self, address: &str) -> Result<Line, String> {
        if let Some(line) = self.state.lock().lines.get(address) {
            return Ok(line.clone());
        }
        let channel = (self.connect)(address)?;
        let mut state = self.state.lock();
        state.made += 1;
        let number = state.made;
        Ok(state.lines.entry(address.to_owned()).or_insert(Line { number, channel }).clone())
    }

    /// Drops a channel that failed, unless another has taken its place.
    pub(super) fn failed(&self, address: &str, line: &Line) {
        let mut state = self.state.lock();
        if state.lines.get(address).is_some_and(|now| now.number == line.number) {
            state.lines.remove(address);
        }
    }

    /// Drops the channels whose addresses left the placement.
    pub(super) fn prune(&self, view: &Arc<PlacementView>) {
        let mut state = self.state.lock();
        if state.seen.as_ptr() == Arc::as_ptr(view) {
            return;
        }
        state.seen = Arc::downgrade(view);
        let addresses: HashSet<&str> =
            view.shards.iter().flat_map(|s| &s.replicas).map(|r| r.address.as_str()).collect();
        state.lines.retain(|address, _| addresses.contains(address.as_str()));
    }

    pub(super) fn clear(&self) {
        self.state.lock().lines.clear();
    }

    #[cfg(test)]
    pub(super) fn addresses(&self) -> Vec<String> {
        self.state.lock().lines.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{Replica, ShardPlacement};

    #[tokio::test]
    async fn channels_are_kept_until_they_fail_or_their_address_goes() {
        let channels = Channels::new(plain_connect());
        let a = channels.get("127.0.0.1:1").unwrap();
        channels.get("127.0.0.1:2").unwrap();
        assert_eq!(channels.get("127.0.0.1:1").unwrap().number, a.number);
        channels.failed("127.0.0.1:1", &a);
        let again = channels.get("127.0.0.1:1").unwrap();
        assert_ne!(again.number, a.number);
        // A late failure of the old one does not drop the new one.
        channels.failed("127.0.0.1:1", &a);
        assert_eq!(channels.get("127.0.0.1:1").unwrap().number, again.number);
        let replicas = vec![Replica { node: 2, address: "127.0.0.1:2".to_owned() }];
        let shards = vec![ShardPlacement { replicas, leader: None }];
        channels.prune(&Arc::new(PlacementView { shard_count: 1, shards }));
        assert_eq!(channels.addresses(), ["127.0.0.1:2"]);
        assert!(channels.get("not an address").is_err());
    }
}
