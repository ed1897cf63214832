//! Why a query has no answer.

/// Errors of planning and evaluating, classed by what the caller must do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// The query asks for what cannot be answered on this data or at all; Prometheus calls it an execution error.
    #[error("{0}")]
    Execution(String),
    /// The query goes over a limit.
    #[error("{what} ({limit} is {value})")]
    Limit {
        /// What happened, in Prometheus' words where it has some.
        what: String,
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        value: u64,
    },
    /// The query was cancelled.
    #[error("query was canceled in expression evaluation")]
    Cancelled,
    /// The source of samples failed.
    #[error("expanding series: {0}")]
    Source(String),
    /// Two operators do not fit together: a defect of the planner.
    #[error("internal error in query evaluation: {0}")]
    Internal(&'static str),
}

impl EvalError {
    /// An execution error.
    pub fn execution(text: impl Into<String>) -> Self {
        Self::Execution(text.into())
    }

    /// Two result series of one step have equal labels.
    pub fn same_labelset() -> Self {
        Self::execution("vector cannot contain metrics with the same labelset")
    }
}
