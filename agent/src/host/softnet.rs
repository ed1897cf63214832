//! Packet processing per processor, from `/proc/net/softnet_stat`.

use sextant_model::MetricType::{self, Counter, Gauge};

use super::collector::{CollectError, Collector, Gather, HostPaths, field, read};

/// Column, metric, help, type.
const COLUMNS: [(usize, &str, &str, MetricType); 7] = [
    (0, "node_softnet_processed_total", "Number of processed packets", Counter),
    (1, "node_softnet_dropped_total", "Number of dropped packets", Counter),
    (2, "node_softnet_times_squeezed_total", "Number of times processing packets ran out of quota", Counter),
    (
        8,
        "node_softnet_cpu_collision_total",
        "Number of collision occur while obtaining device lock while transmitting",
        Counter,
    ),
    (9, "node_softnet_received_rps_total", "Number of times cpu woken up received_rps", Counter),
    (10, "node_softnet_flow_limit_count_total", "Number of times flow limit has been reached", Counter),
    (11, "node_softnet_backlog_len", "Softnet backlog status", Gauge),
];
const CPU_COLUMN: usize = 12;
/// The columns that every kernel has; the others came later.
const COLUMNS_ALWAYS: usize = 3;

/// The collector `softnet`.
pub struct SoftNet;

impl Collector for SoftNet {
    fn name(&self) -> &'static str {
        "softnet"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let path = paths.proc.join("net/softnet_stat");
        let hex = |t: &str| {
            u32::from_str_radix(t, 16)
                .map_err(|_| CollectError::malformed(&path, format!("{t:?} is not a hexadecimal number")))
        };
        for (index, line) in read(&path)?.lines().enumerate() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let cpu = match fields.get(CPU_COLUMN) {
                Some(c) => hex(c)?.to_string(),
                None => index.to_string(),
            };
            for (column, name, help, metric_type) in COLUMNS {
                if column >= COLUMNS_ALWAYS && column >= fields.len() {
                    continue;
                }
                let value = hex(field(&path, &fields, column)?)?;
                out.add(metric_type, name, help, &[("cpu", &cpu)], f64::from(value));
            }
        }
        Ok(())
    }
}
