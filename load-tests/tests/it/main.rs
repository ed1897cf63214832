//! The checker with real processes, as `cargo xtask cluster` starts them.

mod checker;
