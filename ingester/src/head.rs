//! The head.
mod bits;
mod chunk;
mod column;
