//! Asking a node, or whichever of several leads.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use sextant_proto::rpc::{Connect, Frame, FrameCodec};
use sextant_replication::{ClusterId, metadata};
use tonic::{client::Grpc, transport::Channel};

use crate::message::{Answer, Envelope, MESSAGE_VERSION, Refusal, Reply, Request};

pub(crate) const PATH: &str = "/sextant.v1.Cluster/Call";

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The node could not be reached, or did not answer in time. It may have acted.
    #[error("{address}: {reason}")]
    NoAnswer {
        /// The node's address.
        address: String,
        /// What happened.
        reason: String,
    },
    /// It answered, and did not do it.
    #[error("{address}: {refusal}")]
    Refused {
        /// The node's address.
        address: String,
        /// Why.
        refusal: Refusal,
    },
    /// Nobody is known who could be asked.
    #[error("no ingester is known (cluster.peers)")]
    Nobody,
}

/// Speaks to nodes; clones share connections.
#[derive(Clone)]
pub struct ClusterClient {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: ClusterId,
    connect: Connect,
    /// By address; one that failed is made anew.
    channels: Mutex<HashMap<String, Channel>>,
}

impl ClusterClient {
    /// A client of one cluster.
    pub fn new(cluster: ClusterId, connect: Connect) -> Self {
        Self { inner: Arc::new(Inner { cluster, connect, channels: Mutex::default() }) }
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.inner.cluster
    }

    /// Drops all channels, so that the next calls connect anew: certificates have changed.
    pub fn reconnect(&self) {
        self.inner.channels.lock().clear();
    }

    fn channel(&self, address: &str) -> Result<Channel, String> {
        if let Some(channel) = self.inner.channels.lock().get(address) {
            return Ok(channel.clone());
        }
        let channel = (self.inner.connect)(address)?;
        self.inner.channels.lock().insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Asks one node.
    pub async fn call(&self, address: &str, request: Request, within: Duration) -> Result<Reply, CallError> {
        let no_answer = |reason: String| {
            self.inner.channels.lock().remove(address);
            CallError::NoAnswer { address: address.to_owned(), reason }
        };
        let envelope = Envelope { version: MESSAGE_VERSION, cluster: self.inner.cluster, request };
        let body = serde_json::to_vec(&envelope).map_err(|e| no_answer(e.to_string()))?;
        let mut grpc = Grpc::new(self.channel(address).map_err(no_answer)?)
            .max_decoding_message_size(sextant_proto::rpc::MESSAGE_BYTES_MAX);
        let asked = async {
            grpc.ready().await.map_err(|e| e.to_string())?;
            let request = tonic::Request::new(Frame::whole(body.into()));
            let path = PathAndQuery::from_static(PATH);
            let answer = grpc.unary(request, path, FrameCodec).await;
            answer.map(tonic::Response::into_inner).map_err(|s| s.message().to_owned())
        };
        let answer: Bytes = match tokio::time::timeout(within, asked).await {
            Ok(answer) => answer.map_err(no_answer)?,
            Err(_) => return Err(no_answer(format!("no answer within {within:?}"))),
        };
        let answer: Answer = serde_json::from_slice(&answer).map_err(|e| no_answer(e.to_string()))?;
        answer.map_err(|refusal| CallError::Refused { address: address.to_owned(), refusal })
    }

    /// Has the metadata's leader apply a command, whichever of the nodes that is. A command that may have been applied is asked
    /// again: commands allow for it.
    pub async fn propose(
        &self,
        addresses: &[String],
        command: &metadata::Command,
        within: Duration,
    ) -> Result<u64, CallError> {
        let deadline = tokio::time::Instant::now() + within;
        let mut error = CallError::Nobody;
        let mut hint = None;
        loop {
            let mut asked = Vec::from_iter(hint.take());
            asked.extend(addresses.iter().cloned());
            for address in asked {
                let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                let attempt = left.min(Duration::from_secs(5));
                match self.call(&address, Request::Propose(command.clone()), attempt).await {
                    Ok(Reply::Proposed(result)) => return Ok(result),
                    Ok(_) => return Err(CallError::NoAnswer { address, reason: "not an answer".to_owned() }),
                    Err(e @ CallError::Refused { refusal: Refusal::Refused(_), .. }) => return Err(e),
                    Err(e) => {
                        if let CallError::Refused { refusal: Refusal::NotLeader(Some(leader)), .. } = &e {
                            hint = Some(leader.clone());
                        }
                        error = e;
                    }
                }
                if hint.is_some() {
                    break;
                }
            }
            let pause = Duration::from_millis(100);
            if tokio::time::Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }
}
