//! Tests of the ingester through its public surface.

mod crash;
mod service;
mod support;
mod twin;
