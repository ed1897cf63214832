//! The kernel's entropy pool.

use super::collector::{CollectError, Collector, Gather, HostPaths, number, read};

/// The collector `entropy`.
pub struct Entropy;

impl Collector for Entropy {
    fn name(&self) -> &'static str {
        "entropy"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        for (file, name, help) in [
            ("entropy_avail", "node_entropy_available_bits", "Bits of available entropy."),
            ("poolsize", "node_entropy_pool_size_bits", "Bits of entropy pool."),
        ] {
            let path = paths.proc.join("sys/kernel/random").join(file);
            out.gauge(name, help, &[], number(&path, read(&path)?.trim())?);
        }
        Ok(())
    }
}
