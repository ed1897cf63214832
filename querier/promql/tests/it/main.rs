//! Tests of the parser: the shared conformance suites, bad input, bounds, and properties.

mod bounds;
mod durations;
mod expressions;
mod fuzz;
mod lexer;
mod notation;
mod options;
mod printing;
mod properties;
mod queries;
mod suite;
mod tree;
