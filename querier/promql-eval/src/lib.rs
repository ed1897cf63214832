//! PromQL's semantics as columnar operators.
//!
//! [`plan`] turns a parsed expression into a tree of [`Node`]s; each is an operator with children and a pure,
//! synchronous function from their values ([`Node::apply`]). Raw samples come in as `sextant_model::SeriesSet`, go
//! through the tree as [`StepBlock`]s (series × steps, contiguous rows), and leave as a [`QueryResult`]. An engine drives the tree
//! itself, splitting nodes as [`Node::split`] allows; [`evaluate`] drives it on one thread.
//!
//! **Architecture Invariant:** nothing here does I/O, awaits, or knows Arrow or DataFusion; nothing per sample goes
//! through a virtual call; answers are Prometheus' own, its annotations included.

mod aggregate;
mod annotations;
mod binary;
mod bits;
mod block;
mod cancel;
mod context;
mod count_values;
mod date;
mod describe;
mod error;
mod evaluate;
mod format;
mod functions;
mod groups;
mod histogram;
mod info;
mod kahan;
mod labels;
mod names;
mod node;
mod params;
mod plan;
mod quantile;
mod range;
mod rank;
mod result;
mod select;
mod step_counts;
mod steps;
mod subquery;
pub mod testing;
mod value;

pub use aggregate::{Aggregate, Partial};
pub use annotations::{Annotation, Annotations, Severity, line_and_column};
pub use block::{Cell, Row, StepBlock};
pub use cancel::CancelFlag;
pub use context::EvalContext;
pub use error::EvalError;
pub use evaluate::{SeriesProvider, evaluate};
pub use format::{go_float, plain_float};
pub use node::{Node, Operator, Split};
pub use params::{EvalParams, QueryKind};
pub use plan::{Plan, SelectorRange, plan};
pub use result::{MatrixSeries, QueryResult, finish};
pub use select::{InstantOutput, InstantSelect, Select, SelectWhat, SelectorTime};
pub use step_counts::FirstUser;
pub use steps::Steps;
pub use value::{RawSeries, Scalars, Value};
