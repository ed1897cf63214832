//! The exposition formats: what a scraped target may answer, and the same the other way.
//!
//! ```text
//! text         the Prometheus text format 0.0.4 and 1.0.0 (quoted UTF-8 names): a pull parser of lines
//! openmetrics  OpenMetrics 0.0.1 and 1.0.0: the same entries, with units, exemplars and `# EOF`
//! strict       the rules of OpenMetrics that scraping does not enforce (order, grouping, values by type)
//! protobuf     length-delimited `io.prometheus.client.MetricFamily` ([`sextant_proto::metric_family`])
//! families     text to those messages, which are also the form of families that are written
//! write        families to text and to OpenMetrics
//! ```
//!
//! Parsers borrow from the body and never panic on it. **Architecture Invariant:** nothing here does I/O.

mod error;
mod families;
mod lexer;
mod number;
mod openmetrics;
mod protobuf;
mod sample;
mod strict;
mod text;
mod write;
mod write_openmetrics;
mod write_text;

pub use error::{ParseError, TextFault};
pub use families::text_to_families;
pub use lexer::{Dialect, ParsedLabels};
pub use number::{format_float, format_openmetrics_float, parse_float};
pub use openmetrics::OpenMetricsParser;
pub use protobuf::{ClassicSample, FamilyReader, classic_samples, is_native, label_pairs, native_histogram};
pub use sample::{Entry, ParsedExemplar, SampleLine};
pub use strict::validate_openmetrics;
pub use text::TextParser;
pub use write_openmetrics::{OpenMetricsOptions, write_openmetrics};
pub use write_text::write_text;

#[doc(hidden)]
pub mod fuzz {
    //! Entry points for fuzzing: any bytes may be given, only a panic is a finding.

    use super::*;

    /// Both parsers of the text format.
    pub fn fuzz_text(data: &[u8]) {
        let mut parser = match TextParser::new(data) {
            Ok(p) => p,
            Err(_) => return,
        };
        while let Ok(Some(entry)) = parser.next_entry() {
            if let Entry::Sample(line) = entry {
                let _ = line.labels();
            }
        }
        if let Ok(families) = text_to_families(data) {
            let mut out = String::new();
            for f in &families {
                write_text(f, &mut out);
                write_openmetrics(f, OpenMetricsOptions::default(), &mut out);
            }
        }
    }

    /// The parser of OpenMetrics and its rules.
    pub fn fuzz_openmetrics(data: &[u8]) {
        let _ = validate_openmetrics(data);
        let mut parser = match OpenMetricsParser::new(data) {
            Ok(p) => p,
            Err(_) => return,
        };
        while let Ok(Some(entry)) = parser.next_entry() {
            if let Entry::Sample(line) = entry {
                let _ = line.labels();
            }
        }
    }

    /// The reader of delimited messages.
    pub fn fuzz_protobuf(data: &[u8]) {
        for family in FamilyReader::new(data).map_while(Result::ok) {
            for metric in &family.metric {
                if let Some(h) = &metric.histogram {
                    let _ = native_histogram(h, false);
                }
                classic_samples(&family, metric, &mut |_| {});
            }
            let mut out = String::new();
            write_text(&family, &mut out);
        }
    }
}
