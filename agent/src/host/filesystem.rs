//! Sizes of mounted file systems, from `/proc/1/mountinfo` and `statvfs`.

use rustix::fs::{StatVfs, statvfs};

use super::{
    collector::{CollectError, Collector, Gather, HostPaths, read},
    mount_stats::MountStats,
};

/// The collector `filesystem`.
#[derive(Default)]
pub struct FileSystem {
    stats: MountStats<StatVfs>,
}

/// node_exporter's default exclusions of kinds.
const IGNORED_KINDS: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "erofs",
    "sysfs",
    "tracefs",
];

/// node_exporter's default exclusions of mount points.
fn ignored_mount(point: &str) -> bool {
    let under = |p: &str| point == p || point.starts_with(&format!("{p}/"));
    ["/dev", "/proc", "/sys", "/run/credentials"].iter().any(|p| under(p))
        || point.starts_with("/var/lib/docker/")
        || point.starts_with("/var/lib/containers/storage/")
}

fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

impl Collector for FileSystem {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let text =
            read(&paths.proc.join("1/mountinfo")).or_else(|_| read(&paths.proc.join("self/mountinfo")))?;
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(point), Some(options), [kind, device, ..]) =
                (left.get(4), left.get(5), right.as_slice())
            else {
                continue;
            };
            let (point, device) = (unescape(point), unescape(device));
            if IGNORED_KINDS.contains(kind)
                || ignored_mount(&point)
                || !seen.insert((device.clone(), point.clone()))
            {
                continue;
            }
            let labels =
                [("device", device.as_str()), ("mountpoint", &point), ("fstype", kind), ("device_error", "")];
            let at = paths.rootfs.join(point.trim_start_matches('/'));
            let Ok(s) = self.stats.ask(&at, |at| Ok(statvfs(at)?)) else {
                out.gauge(
                    "node_filesystem_device_error",
                    "Whether an error occurred while getting statistics for the given device.",
                    &labels,
                    1.0,
                );
                continue;
            };
            let block = s.f_frsize as f64;
            let read_only = options.split(',').any(|o| o == "ro");
            for (name, help, value) in [
                ("size_bytes", "Filesystem size in bytes.", s.f_blocks as f64 * block),
                ("free_bytes", "Filesystem free space in bytes.", s.f_bfree as f64 * block),
                (
                    "avail_bytes",
                    "Filesystem space available to non-root users in bytes.",
                    s.f_bavail as f64 * block,
                ),
                ("files", "Filesystem total file nodes.", s.f_files as f64),
                ("files_free", "Filesystem total free file nodes.", s.f_ffree as f64),
                ("readonly", "Filesystem read-only status.", f64::from(u8::from(read_only))),
                (
                    "device_error",
                    "Whether an error occurred while getting statistics for the given device.",
                    0.0,
                ),
            ] {
                out.gauge(format!("node_filesystem_{name}"), help, &labels, value);
            }
        }
        Ok(())
    }
}
