//! Why a request as a whole is not taken, classed by what the sender must do.

use sextant_proto::{ErrorClass, WriteError};

/// A request that was refused before anything of it was sent to a shard.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// A content type that is not remote write.
    #[error(
        "content type {0:?} is not accepted; expected application/x-protobuf, with proto=prometheus.WriteRequest \
         or proto=io.prometheus.write.v2.Request"
    )]
    ContentType(String),
    /// A content type that names a message which is not remote write's.
    #[error(
        "got {content_type} content type; unknown type for remote write protobuf message {message}, supported: \
         prometheus.WriteRequest, io.prometheus.write.v2.Request"
    )]
    Message {
        /// The whole header.
        content_type: String,
        /// Its `proto` parameter.
        message: String,
    },
    /// A content encoding other than snappy.
    #[error("{0} encoding (compression) is not accepted by this server; only snappy is acceptable")]
    ContentEncoding(String),
    /// The body is not a snappy block.
    #[error("body is not a snappy block: {0}")]
    Snappy(String),
    /// The body, or what it declares to hold, is too large.
    #[error(
        "limit max_request_bytes ({limit}) exceeded by a request of {size} bytes; raise it with limits key \
         max_request_bytes"
    )]
    TooLarge {
        /// Bytes, as sent or as declared after decompression.
        size: u64,
        /// The tenant's limit.
        limit: u64,
    },
    /// The process has not heard of the cluster's shards yet.
    #[error("no ingester of the cluster is known yet; repeat the request")]
    NoShards,
    /// The request is small and its content is not.
    #[error(
        "a request may hold at most {limit} series, samples, histograms and exemplars; send smaller requests"
    )]
    TooManyItems {
        /// How many it may hold.
        limit: usize,
    },
    /// Symbols used again and again make more label text than a request may have.
    #[error(
        "limit max_request_bytes ({limit}) exceeded by the labels of a request's series; raise it with limits key \
         max_request_bytes"
    )]
    TooManyLabelBytes {
        /// The tenant's limit.
        limit: u64,
    },
    /// The message is not the protobuf message it should be.
    #[error("malformed {message}: {reason} at byte {at}")]
    Protobuf {
        /// The message's name.
        message: &'static str,
        /// What is wrong.
        reason: &'static str,
        /// Where, counted from the start of the decompressed body.
        at: usize,
    },
    /// The tenant sends faster than it may.
    #[error(
        "limit ingestion_rate ({rate} samples/s, burst {burst}) exceeded by a request of {samples} samples; raise it \
         with limits keys ingestion_rate and ingestion_burst"
    )]
    Rate {
        /// Samples a second.
        rate: f64,
        /// Samples at once.
        burst: u64,
        /// Samples of the request.
        samples: u64,
        /// After how many seconds the request would be taken.
        retry_after_s: u32,
    },
}

impl RequestError {
    /// What the sender must do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::ContentType(_) | Self::Message { .. } | Self::ContentEncoding(_) => {
                ErrorClass::UnsupportedMediaType
            }
            Self::Snappy(_) | Self::Protobuf { .. } => ErrorClass::BadRequest,
            Self::TooLarge { .. } | Self::TooManyItems { .. } | Self::TooManyLabelBytes { .. } => {
                ErrorClass::TooLarge
            }
            Self::Rate { .. } => ErrorClass::TooManyRequests,
            Self::NoShards => ErrorClass::Unavailable,
        }
    }
}

impl From<RequestError> for WriteError {
    fn from(e: RequestError) -> Self {
        let mut out = WriteError::new(e.class(), e.to_string());
        if let RequestError::Rate { retry_after_s, .. } = e {
            out.retry_after_s = Some(retry_after_s);
        }
        out
    }
}
