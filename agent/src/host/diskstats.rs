//! Counters per disk, from `/proc/diskstats`.

use sextant_model::MetricType;

use super::collector::{CollectError, Collector, Gather, HostPaths, field, number, read, read_optional};

/// Column in the file, metric, help, type, factor. Sectors have 512 bytes, times are milliseconds.
const COLUMNS: [(usize, &str, &str, MetricType, f64); 17] = [
    (
        3,
        "reads_completed_total",
        "The total number of reads completed successfully.",
        MetricType::Counter,
        1.0,
    ),
    (4, "reads_merged_total", "The total number of reads merged.", MetricType::Counter, 1.0),
    (5, "read_bytes_total", "The total number of bytes read successfully.", MetricType::Counter, 512.0),
    (
        6,
        "read_time_seconds_total",
        "The total number of seconds spent by all reads.",
        MetricType::Counter,
        0.001,
    ),
    (
        7,
        "writes_completed_total",
        "The total number of writes completed successfully.",
        MetricType::Counter,
        1.0,
    ),
    (8, "writes_merged_total", "The number of writes merged.", MetricType::Counter, 1.0),
    (9, "written_bytes_total", "The total number of bytes written successfully.", MetricType::Counter, 512.0),
    (
        10,
        "write_time_seconds_total",
        "This is the total number of seconds spent by all writes.",
        MetricType::Counter,
        0.001,
    ),
    (11, "io_now", "The number of I/Os currently in progress.", MetricType::Gauge, 1.0),
    (12, "io_time_seconds_total", "Total seconds spent doing I/Os.", MetricType::Counter, 0.001),
    (
        13,
        "io_time_weighted_seconds_total",
        "The weighted # of seconds spent doing I/Os.",
        MetricType::Counter,
        0.001,
    ),
    (
        14,
        "discards_completed_total",
        "The total number of discards completed successfully.",
        MetricType::Counter,
        1.0,
    ),
    (15, "discards_merged_total", "The total number of discards merged.", MetricType::Counter, 1.0),
    (
        16,
        "discarded_sectors_total",
        "The total number of sectors discarded successfully.",
        MetricType::Counter,
        1.0,
    ),
    (
        17,
        "discard_time_seconds_total",
        "This is the total number of seconds spent by all discards.",
        MetricType::Counter,
        0.001,
    ),
    (
        18,
        "flush_requests_total",
        "The total number of flush requests completed successfully",
        MetricType::Counter,
        1.0,
    ),
    (
        19,
        "flush_requests_time_seconds_total",
        "This is the total number of seconds spent by all flush requests.",
        MetricType::Counter,
        0.001,
    ),
];

/// The collector `diskstats`.
pub struct DiskStats;

/// node_exporter's default: no ram, loop and floppy devices, no partitions.
fn ignored(device: &str) -> bool {
    let digits = |prefix: &str| {
        device.strip_prefix(prefix).is_some_and(|r| !r.is_empty() && r.bytes().all(|b| b.is_ascii_digit()))
    };
    let partition_of_letters = ["hd", "sd", "vd", "xvd"].iter().any(|p| {
        device.strip_prefix(p).is_some_and(|r| {
            let letters = r.trim_end_matches(|c: char| c.is_ascii_digit());
            letters.len() == 1 && letters.len() < r.len()
        })
    });
    let nvme_partition = device.starts_with("nvme")
        && device.rsplit_once('p').is_some_and(|(head, tail)| {
            head.contains('n') && !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit())
        });
    ["z", ""].contains(&device)
        || digits("ram")
        || digits("loop")
        || digits("fd")
        || partition_of_letters
        || nvme_partition
}

impl Collector for DiskStats {
    fn name(&self) -> &'static str {
        "diskstats"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let path = paths.proc.join("diskstats");
        for line in read(&path)?.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let device = field(&path, &fields, 2)?;
            if ignored(device) {
                continue;
            }
            info(paths, &fields[..3], out);
            for (column, name, help, metric_type, factor) in COLUMNS {
                let Some(text) = fields.get(column) else { break };
                let value = number(&path, text)? * factor;
                out.add(metric_type, format!("node_disk_{name}"), help, &[("device", device)], value);
            }
        }
        Ok(())
    }
}

/// What udev knows of a device given as major, minor and name; nothing of it where there is no udev.
fn info(paths: &HostPaths, id: &[&str], out: &mut Gather) {
    let [major, minor, device] = *id else { return };
    let data =
        read_optional(&paths.rootfs.join(format!("run/udev/data/b{major}:{minor}"))).unwrap_or_default();
    let property = |name: &str| {
        let found = data.lines().find_map(|l| l.strip_prefix("E:")?.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default()
    };
    let labels = [
        ("device", device),
        ("major", major),
        ("minor", minor),
        ("model", property("ID_MODEL")),
        ("path", property("ID_PATH")),
        ("revision", property("ID_REVISION")),
        ("serial", property("ID_SERIAL_SHORT")),
        ("wwn", property("ID_WWN")),
    ];
    out.gauge("node_disk_info", "Info of /sys/block/<block_device>.", &labels, 1.0);
}
