//! Conformance scripts, engine suites, and the twin.

mod bounds;
mod engine_suites;
mod scripts;
mod split;
mod twin;
