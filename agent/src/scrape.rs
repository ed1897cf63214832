//! Scraping: targets are asked for their metrics at even times, and what they say becomes samples.
//!
//! ```text
//! config    `scrape_configs` in Prometheus' YAML, checked
//! target    one target: labels before and after relabelling, URL, its place in the interval
//! fetch     one HTTP request, negotiated, bounded in time and size
//! negotiate formats, the Accept header, what a Content-Type means
//! series    the known series of a target: text of a line to labels, once
//! session   a body to samples, markers of staleness and the target's own metrics; no I/O
//! values    single values of an answer in our form
//! report    what is known of targets, for the API
//! pool      the running targets of a configuration
//! ```

mod config;
mod fetch;
mod negotiate;
mod pool;
mod report;
mod series;
mod session;
mod target;
mod values;

pub use config::{Authorization, JobConfig, ScrapeConfigs, StaticGroup, TlsConfig};
pub use fetch::{FetchError, Fetcher};
pub use negotiate::{BodyFormat, ScrapeProtocol, accept_header};
pub(crate) use pool::{Registry, ScrapePool};
pub use report::{DroppedTarget, Health, TargetReport, TargetState};
pub use session::{ScrapeCounts, ScrapeError, Session};
pub use target::Target;
