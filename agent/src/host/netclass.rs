//! Properties of network devices, from `/sys/class/net`.

use sextant_model::MetricType::{self, Counter, Gauge};

use super::collector::{CollectError, Collector, Gather, HostPaths, list, read_optional};

/// File, property in the metric's name, type.
const ATTRIBUTES: [(&str, &str, MetricType); 17] = [
    ("addr_assign_type", "address_assign_type", Gauge),
    ("carrier", "carrier", Gauge),
    ("carrier_changes", "carrier_changes_total", Counter),
    ("carrier_up_count", "carrier_up_changes_total", Counter),
    ("carrier_down_count", "carrier_down_changes_total", Counter),
    ("dev_id", "device_id", Gauge),
    ("dormant", "dormant", Gauge),
    ("flags", "flags", Gauge),
    ("ifindex", "iface_id", Gauge),
    ("iflink", "iface_link", Gauge),
    ("link_mode", "iface_link_mode", Gauge),
    ("mtu", "mtu_bytes", Gauge),
    ("name_assign_type", "name_assign_type", Gauge),
    ("netdev_group", "net_dev_group", Gauge),
    ("speed", "speed_bytes", Gauge),
    ("tx_queue_len", "transmit_queue_length", Gauge),
    ("type", "protocol_type", Gauge),
];

/// The kernel tells a link's speed in megabits.
const MEGABIT_BYTES: f64 = 1000.0 * 1000.0 / 8.0;

/// The collector `netclass`.
pub struct NetClass;

impl Collector for NetClass {
    fn name(&self) -> &'static str {
        "netclass"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let class = paths.sys.join("class/net");
        for device in list(&class)? {
            let dir = class.join(&device);
            // `bonding_masters` is a file among the devices.
            if !dir.is_dir() {
                continue;
            }
            // An attribute that does not apply to the device exists and cannot be read.
            let text = |file: &str| read_optional(&dir.join(file)).unwrap_or_default();
            let operstate = text("operstate");
            let up = f64::from(u8::from(operstate == "up"));
            out.gauge(
                "node_network_up",
                "Value is 1 if operstate is 'up', 0 otherwise.",
                &[("device", &device)],
                up,
            );
            let labels = [
                ("device", device.as_str()),
                ("address", &text("address")),
                ("broadcast", &text("broadcast")),
                ("duplex", &text("duplex")),
                ("operstate", &operstate),
                ("ifalias", &text("ifalias")),
            ];
            let help = "Non-numeric data from /sys/class/net/<iface>, value is always 1.";
            out.gauge("node_network_info", help, &labels, 1.0);
            for (file, property, metric_type) in ATTRIBUTES {
                let Some(value) = integer(&text(file)) else { continue };
                let value = if file == "speed" { value * MEGABIT_BYTES } else { value };
                let help = format!("Network device property: {property}");
                out.add(metric_type, format!("node_network_{property}"), help, &[("device", &device)], value);
            }
        }
        Ok(())
    }
}

/// Attributes are decimal, or hexadecimal with `0x`.
fn integer(text: &str) -> Option<f64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok().map(|v| v as f64),
        None => text.parse::<i64>().ok().map(|v| v as f64),
    }
}
