//! Structured logs to standard error.

use anyhow::{Context, Result, bail};
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::Config;

/// Starts logging as configured; once per process.
pub fn init(config: &Config) -> Result<()> {
    // The consensus library reports each election step at info; its warnings are what a person needs.
    let filter = format!("openraft=warn,{}", config.text("log.level"));
    let filter = EnvFilter::try_new(filter).context("log.level")?;
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.text("log.format") {
        "text" => logs.with_ansi(false).init(),
        "json" => logs.json().flatten_event(true).init(),
        other => bail!("log.format: {other:?} is neither `text` nor `json`"),
    }
    Ok(())
}
