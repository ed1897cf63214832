//! This host's metrics under node_exporter's names: one file per collector.
//!
//! **Architecture Invariant:** a collector that fails or finds nothing does not stop the others.

#[cfg(target_os = "linux")]
mod adjtimex;
mod arp;
mod bonding;
mod collector;
mod conntrack;
mod cpu;
mod diskstats;
mod entropy;
mod filefd;
mod filesystem;
mod loadavg;
mod meminfo;
mod mount_stats;
mod netclass;
mod netdev;
mod netstat;
mod os;
mod pressure;
mod process;
mod schedstat;
mod selinux;
mod sockstat;
mod softnet;
mod stat;
mod time;
mod time_zone;
mod timex;
mod udp_queues;
mod uname;
mod vmstat;

use std::{sync::Arc, time::Instant};

#[cfg(target_os = "linux")]
pub use adjtimex::KernelClock;
pub use collector::{CollectError, Collector, Gather, HostFamily, HostPaths, HostSample};
pub use timex::{ClockStatus, TimexReading};

/// All collectors of one host.
pub struct HostMetrics {
    paths: HostPaths,
    collectors: Vec<Box<dyn Collector>>,
}

/// What one round gave.
pub struct Collection {
    /// The metrics, `node_scrape_collector_*` included.
    pub families: Vec<HostFamily>,
    /// How many collectors failed; those without anything to read on this host are not among them.
    pub failed: u64,
}

impl HostMetrics {
    /// Every collector; that of the clock where there is something to read it with.
    pub fn new(paths: HostPaths, clock_status: Option<Arc<dyn ClockStatus>>) -> Self {
        let mut collectors: Vec<Box<dyn Collector>> = vec![
            Box::new(arp::Arp),
            Box::new(bonding::Bonding),
            Box::new(conntrack::Conntrack),
            Box::new(cpu::Cpu::default()),
            Box::new(diskstats::DiskStats),
            Box::new(entropy::Entropy),
            Box::new(filefd::FileFd),
            Box::new(filesystem::FileSystem::default()),
            Box::new(loadavg::LoadAvg),
            Box::new(meminfo::MemInfo),
            Box::new(netclass::NetClass),
            Box::new(netdev::NetDev),
            Box::new(netstat::NetStat),
            Box::new(os::Os),
            Box::new(pressure::Pressure),
            Box::new(process::OwnProcess),
            Box::new(schedstat::SchedStat),
            Box::new(selinux::SeLinux),
            Box::new(sockstat::SockStat),
            Box::new(softnet::SoftNet),
            Box::new(stat::Stat),
            Box::new(time::Time),
            Box::new(udp_queues::UdpQueues),
            Box::new(uname::Uname),
            Box::new(vmstat::VmStat),
        ];
        if let Some(status) = clock_status {
            collectors.push(Box::new(timex::Timex::new(status)));
        }
        Self { paths, collectors }
    }

    /// Runs every collector once. Blocks on files; a filesystem that does not answer costs some seconds once.
    pub fn collect(&mut self) -> Collection {
        let mut out = Gather::default();
        let mut failed = 0;
        for collector in &mut self.collectors {
            let name = collector.name();
            let start = Instant::now();
            let result = collector.collect(&self.paths, &mut out);
            let labels = [("collector", name)];
            let help = "node_exporter: Duration of a collector scrape.";
            out.gauge("node_scrape_collector_duration_seconds", help, &labels, start.elapsed().as_secs_f64());
            let success = f64::from(u8::from(result.is_ok()));
            let help = "node_exporter: Whether a collector succeeded.";
            out.gauge("node_scrape_collector_success", help, &labels, success);
            match result {
                Ok(()) => {}
                Err(error @ (CollectError::Unavailable(_) | CollectError::Forbidden(_))) => {
                    tracing::debug!(collector = name, %error, "collector has nothing to read");
                }
                Err(error) => {
                    failed += 1;
                    tracing::warn!(collector = name, %error, "collector failed");
                }
            }
        }
        Collection { families: out.into_families(), failed }
    }
}

/// The clock of this host, where its kernel can be asked for it.
pub fn kernel_clock() -> Option<Arc<dyn ClockStatus>> {
    #[cfg(target_os = "linux")]
    return Some(Arc::new(KernelClock));
    #[cfg(not(target_os = "linux"))]
    None
}

/// The host's own name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
