//! The words every other crate uses: tenants, labels, matchers, samples, native histograms, series sets.
//!
//! Pure data and arithmetic. **Architecture Invariant:** nothing here does I/O, knows tokio or knows Arrow.

mod histogram;
mod labels;
mod matcher;
mod metadata_table;
mod names;
mod re2;
mod sample;
mod series_set;
mod tenant;

pub use histogram::{
    Bucket, BucketQuantile, CUSTOM_BUCKETS_SCHEMA, ClassicBucket, Combined, DecodeError,
    EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MIN, ForcedMonotonic, Histogram, HistogramError,
    MAX_LIST_LENGTH, NanInfo, ResetHint, Side, Span, almost_equal, bucket_bound, bucket_fraction,
    bucket_quantile, counts_to_deltas, deltas_to_counts, is_exponential_schema, kahan_inc,
};
pub use labels::{LabelError, LabelIter, Labels, LabelsBuilder, METRIC_NAME, SeriesId};
pub use matcher::{MatchOp, Matcher, MatcherError, is_valid_label_name, is_valid_legacy_metric_name};
pub use metadata_table::{DESCRIPTIONS_MAX, MetadataTable};
pub use names::{EscapingScheme, escape_name, unescape_name};
pub use re2::anchored_regex;
pub use sample::{
    Exemplar, HistogramSample, MetricMetadata, MetricType, NO_START, STALE_NAN_BITS, Sample, is_stale_nan,
    stale_nan,
};
pub use series_set::{SeriesBuf, SeriesSet};
pub use tenant::{TenantError, TenantId};
