//! Scraping: targets are asked for their metrics at even times, and what they say becomes samples.
//!
//! ```text
//! config    `scrape_configs` in Prometheus' YAML, checked
//! file      the file that holds them, looked at again and again
//! target    one target: labels before and after relabelling, URL, its place in the interval
//! fetch     one HTTP request, negotiated, bounded in time and size
//! negotiate formats, the Accept header, what a Content-Type means
//! series    the known series of a target: text of a line to labels, once
//! session   a body to samples, markers of staleness and the target's own metrics; no I/O
//! values    single values of an answer in our form
//! relabel_steps  what each rule of a job makes of given labels, for the API
//! report    what is known of targets, for the API
//! pool      the running targets of a configuration
//! ```

mod config;
mod fetch;
mod file;
mod negotiate;
mod pool;
mod relabel_steps;
mod report;
mod series;
mod session;
mod target;
mod values;

pub use config::{Authorization, JobConfig, ScrapeConfigs, Secret, StaticGroup, TlsConfig, TlsVersion};
pub use fetch::{FetchError, Fetched, Fetcher};
pub(crate) use file::ScrapeFile;
pub use negotiate::{BodyFormat, ScrapeProtocol, accept_header};
pub(crate) use pool::{Registry, ScrapePool};
pub use relabel_steps::{RelabelStep, RelabelSteps, RelabelStepsError};
pub use report::{DroppedTarget, Health, TargetMetadata, TargetReport, TargetState, TargetStates};
pub use session::{ScrapeCounts, ScrapeError, Session};
pub use target::Target;
