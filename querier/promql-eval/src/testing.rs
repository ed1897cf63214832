//! Scripts in Prometheus' test language, run against anything that stores series and answers queries.
//!
//! [`parse_script`] reads a script, [`run_script`] runs it against a [`Target`] and reports each `eval`. [`Memory`] is the target
//! that this crate's own tests use; an end-to-end test brings one that writes and queries over the network.
//! [`fuzz_twin`] compares the evaluator with a naive one over data and queries made of arbitrary bytes.

mod compare;
mod memory;
mod nhcb;
mod run;
mod script;
mod twin;

pub use compare::{Answer, AnswerValue};
pub use memory::{Memory, MemorySource, answer_value};
pub use run::{Outcome, Report, Target, TargetQuery, run_script};
pub use script::{
    Command, Eval, EvalTime, Expectation, ExpectedSeries, Load, Pattern, ScriptError, parse_script,
};
pub use twin::{Verdict, fuzz_twin};
