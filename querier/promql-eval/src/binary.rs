//! Binary operators.

mod element;
mod matching;
mod scalar;
mod set;
mod vector;

pub use scalar::{ScalarBinary, VectorScalar};
pub use set::SetOperation;
pub use vector::VectorBinary;
