//! Whether SELinux is on and enforces, from its filesystem.

use super::collector::{CollectError, Collector, Gather, HostPaths, number, read, read_optional};

/// The collector `selinux`.
pub struct SeLinux;

impl Collector for SeLinux {
    fn name(&self) -> &'static str {
        "selinux"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let enforce = paths.sys.join("fs/selinux/enforce");
        let text = match read(&enforce) {
            Err(CollectError::Unavailable(_)) => {
                out.gauge("node_selinux_enabled", "SELinux is enabled, 1 is true, 0 is false", &[], 0.0);
                return Ok(());
            }
            other => other?,
        };
        out.gauge("node_selinux_enabled", "SELinux is enabled, 1 is true, 0 is false", &[], 1.0);
        let current = number(&enforce, text.trim())?;
        out.gauge("node_selinux_current_mode", "Current SELinux enforcement mode", &[], current);
        let config = read_optional(&paths.rootfs.join("etc/selinux/config")).unwrap_or_default();
        let mode = match config.lines().find_map(|l| l.trim().strip_prefix("SELINUX=")) {
            Some("enforcing") => 1.0,
            Some("permissive") => 0.0,
            _ => -1.0,
        };
        out.gauge("node_selinux_config_mode", "Configured SELinux enforcement mode", &[], mode);
        Ok(())
    }
}
