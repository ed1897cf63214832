//! Conformance scripts, engine suites, and the twin.

mod scripts;
