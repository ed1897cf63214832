//! The OpenTelemetry receiver: OTLP over HTTP and gRPC, translated to series as Prometheus does.
//!
//! `names`, `attributes` and `histograms` hold the rules, `translate` applies them to a request; `http` and `grpc` are the two
//! transports, free of sockets. A second signal adds a translation and one method per transport; decoding, compression, bounds and
//! errors are shared.

mod attributes;
mod grpc;
mod histograms;
mod http;
mod json;
mod names;
mod translate;

pub use attributes::Joined;
pub use grpc::{MetricsReceiver, metrics_service};
pub use http::{OtlpAnswer, OtlpHeaders, export_metrics};
#[doc(hidden)]
pub use http::{fuzz_otlp, fuzz_otlp_body};
pub use names::{NameError, Strategy, SuffixType, label_name, metric_name, unit_name};
pub use translate::{Translated, translate, translate_within};

/// Parts of the translation, for its tests.
#[doc(hidden)]
pub mod parts {
    pub use super::{
        attributes::{BaseLabels, base_labels, point_labels, value_text},
        histograms::{bucket_layout, custom_buckets, exponential},
        json::metrics_request,
    };
}

/// How OpenTelemetry data becomes series.
#[derive(Clone, Debug, Default)]
pub struct OtlpOptions {
    /// Names.
    pub strategy: Strategy,
    /// Keep several underscores in a row in label names.
    pub keep_underscore_runs: bool,
    /// Put `key` before a label name's single leading underscore.
    pub label_key_prefix: bool,
    /// Resource attributes that become labels of every series, besides `job` and `instance`.
    pub promote_resource_attributes: Vec<String>,
    /// Promote every resource attribute, whatever the list says.
    pub promote_all_resource_attributes: bool,
    /// Attributes that are not promoted when all are.
    pub ignore_resource_attributes: Vec<String>,
    /// Scope name, version, schema and attributes become labels `otel_scope_…`.
    pub promote_scope: bool,
    /// Explicit-bucket histograms become native histograms with custom buckets.
    pub convert_histograms_to_nhcb: bool,
    /// Add the labels `__type__` and `__unit__`.
    pub type_and_unit_labels: bool,
}
