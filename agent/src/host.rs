//! This host's metrics under node_exporter's names: one file per collector; one that fails does not stop the others.

mod arp;
mod collector;
mod conntrack;
mod cpu;
mod diskstats;
mod entropy;
mod filefd;
mod filesystem;
mod loadavg;
mod meminfo;
mod netdev;
mod pressure;
mod schedstat;
mod softnet;
mod stat;
mod time;
mod udp_queues;
mod uname;
mod vmstat;

use std::time::Instant;

pub use collector::{CollectError, Collector, Gather, HostFamily, HostPaths, HostSample};

/// Every collector, in a fixed order.
pub fn collectors() -> Vec<Box<dyn Collector>> {
    vec![
        Box::new(arp::Arp),
        Box::new(conntrack::Conntrack),
        Box::new(cpu::Cpu::default()),
        Box::new(diskstats::DiskStats),
        Box::new(entropy::Entropy),
        Box::new(filefd::FileFd),
        Box::new(filesystem::FileSystem),
        Box::new(loadavg::LoadAvg),
        Box::new(meminfo::MemInfo),
        Box::new(netdev::NetDev),
        Box::new(pressure::Pressure),
        Box::new(schedstat::SchedStat),
        Box::new(softnet::SoftNet),
        Box::new(stat::Stat),
        Box::new(time::Time),
        Box::new(udp_queues::UdpQueues),
        Box::new(uname::Uname),
        Box::new(vmstat::VmStat),
    ]
}

/// Runs every collector; what one handed over before it failed stays.
pub fn collect(collectors: &mut [Box<dyn Collector>], paths: &HostPaths) -> Vec<HostFamily> {
    let mut out = Gather::default();
    for collector in collectors {
        let begin = Instant::now();
        let name = collector.name();
        let result = collector.collect(paths, &mut out);
        let seconds = begin.elapsed().as_secs_f64();
        if let Err(e) = &result {
            tracing::debug!(collector = name, error = %e, "a collector of host metrics gave less than all");
        }
        let labels = [("collector", name)];
        out.gauge("node_scrape_collector_duration_seconds", "node_exporter: Duration of a collector scrape.", &labels, seconds);
        let ok = f64::from(u8::from(result.is_ok()));
        out.gauge("node_scrape_collector_success", "node_exporter: Whether a collector succeeded.", &labels, ok);
    }
    out.into_families()
}
