//! TODO: filled by the first slice.
