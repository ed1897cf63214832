#![no_main]
//! The agent's scrape configuration.

use libfuzzer_sys::fuzz_target;
use sextant_agent::ScrapeConfigs;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = ScrapeConfigs::from_yaml(text);
});
