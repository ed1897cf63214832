//! Tests of the ingester through its public surface.

mod crash;
mod head;
mod service;
mod support;
mod twin;
