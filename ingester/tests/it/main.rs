//! Tests of the ingester through its public surface.

mod crash;
mod delete;
mod head;
mod service;
mod support;
mod twin;
