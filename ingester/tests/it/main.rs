//! Tests of the ingester through its public surface.

mod twin;
