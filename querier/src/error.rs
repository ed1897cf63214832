//! Why a query has no answer, classed by what the caller must do.

use sextant_promql_eval::EvalError;
use sextant_proto::{ErrorClass, ShardError};
use sextant_storage::StorageError;

/// Errors of the querier.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// The request is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// The request is well-formed and cannot be executed.
    #[error("{0}")]
    Execution(String),
    /// A limit is exceeded; the text names limit, value and key.
    #[error("{0}")]
    Limit(String),
    /// The tenant has as many queries waiting as its limit allows; the text names it.
    #[error("{0}")]
    Overloaded(String),
    /// The time allowed has passed.
    #[error(
        "query timed out in expression evaluation after {0:?}; raise it with the parameter `timeout` up to querier.timeout and the limits key max_query_time"
    )]
    Timeout(std::time::Duration),
    /// The client went away.
    #[error("query was canceled")]
    Cancelled,
    /// A shard did not answer.
    #[error("reading recent data: {0}")]
    Shard(#[from] ShardError),
    /// The object store or a block.
    #[error("reading blocks: {0}")]
    Storage(#[from] StorageError),
    /// Our fault.
    #[error("internal error: {0}")]
    Internal(String),
}

impl QueryError {
    /// A per-tenant limit on what one query reads.
    pub fn limit(what: &str, key: &str, value: usize) -> Self {
        Self::Limit(format!(
            "the query reads more {what} than limit {key} ({value}) allows; narrow it, or raise the limit with the limits key {key}"
        ))
    }

    /// What the caller must do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::BadRequest(_) => ErrorClass::BadRequest,
            Self::Execution(_) | Self::Limit(_) => ErrorClass::Unprocessable,
            Self::Overloaded(_) => ErrorClass::TooManyRequests,
            Self::Timeout(_) => ErrorClass::Timeout,
            Self::Cancelled => ErrorClass::Canceled,
            Self::Shard(e) => e.class(),
            Self::Storage(e) => e.class(),
            Self::Internal(_) => ErrorClass::Internal,
        }
    }
}

impl From<EvalError> for QueryError {
    fn from(e: EvalError) -> Self {
        match e {
            EvalError::Execution(text) | EvalError::Source(text) => Self::Execution(text),
            EvalError::Limit { .. } => Self::Limit(e.to_string()),
            EvalError::Cancelled => Self::Cancelled,
            EvalError::Internal(_) => Self::Internal(e.to_string()),
        }
    }
}

impl From<datafusion::error::DataFusionError> for QueryError {
    /// Our own errors travel through plans as external errors and come out as they were.
    fn from(e: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as D;
        match e {
            D::External(inner) => match inner.downcast::<QueryError>() {
                Ok(q) => *q,
                Err(other) => Self::Execution(other.to_string()),
            },
            D::Context(_, inner) => Self::from(*inner),
            D::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
                Ok(inner) => Self::from(inner),
                Err(shared) => Self::from_shared(&shared),
            },
            D::SQL(..) | D::Plan(_) | D::SchemaError(..) | D::NotImplemented(_) => {
                Self::BadRequest(e.strip_backtrace())
            }
            D::ResourcesExhausted(_) => Self::Limit(format!(
                "{}; narrow the query, or raise the limits key max_query_memory_bytes",
                e.strip_backtrace()
            )),
            _ => Self::Execution(e.strip_backtrace()),
        }
    }
}

impl QueryError {
    fn from_shared(e: &datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as D;
        match e {
            D::External(inner) => match inner.downcast_ref::<QueryError>() {
                Some(ours) => ours.clone(),
                None => Self::Execution(inner.to_string()),
            },
            D::Context(_, inner) => Self::from_shared(inner),
            D::Shared(inner) => Self::from_shared(inner),
            other => Self::Execution(other.strip_backtrace()),
        }
    }
}

impl From<QueryError> for datafusion::error::DataFusionError {
    fn from(e: QueryError) -> Self {
        Self::External(Box::new(e))
    }
}
