//! A network namespace for each process, all on one bridge; this process is on it too.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result, bail};

use super::file::ClusterFile;

/// The namespaces; removed with the value.
pub struct Network {
    prefix: String,
    namespaces: Vec<String>,
}

impl Network {
    /// Makes one namespace for each that the file names. What an earlier cluster of this name left is removed.
    pub fn create(file: &ClusterFile, prefix: &str) -> Result<Self> {
        let mut hosts = BTreeMap::new();
        for p in &file.processes {
            let address =
                p.listeners.get("http").and_then(|a| a.rsplit_once(':')).context("http listener")?.0;
            if let Some(netns) = &p.netns {
                hosts.insert(netns.clone(), address.to_owned());
            }
        }
        let subnet =
            hosts.values().next().and_then(|a| a.rsplit_once('.')).context("no process")?.0.to_owned();
        let network = Self { prefix: prefix.to_owned(), namespaces: hosts.keys().cloned().collect() };
        network.remove();
        ip(&format!("link add {prefix} type bridge"))?;
        ip(&format!("addr add {subnet}.1/24 dev {prefix}"))?;
        ip(&format!("link set {prefix} up"))?;
        for (netns, address) in &hosts {
            ip(&format!("netns add {netns}"))?;
            ip(&format!("link add {netns} type veth peer name eth0 netns {netns}"))?;
            ip(&format!("link set {netns} master {prefix} up"))?;
            ip(&format!("-n {netns} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {netns} link set eth0 up"))?;
            ip(&format!("-n {netns} link set lo up"))?;
        }
        Ok(network)
    }

    fn remove(&self) {
        for netns in &self.namespaces {
            // A namespace, and with it its end of the link, outlives its name while one of its connections is in the middle of
            // closing.
            let _ = ip(&format!("link del {netns}"));
            let _ = ip(&format!("netns del {netns}"));
        }
        let _ = ip(&format!("link del {}", self.prefix));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

fn ip(arguments: &str) -> Result<()> {
    let done = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("--netns takes the program `ip`, Debian's package iproute2")?;
    if !done.status.success() {
        bail!(
            "--netns: ip {arguments}: {}; network namespaces take root and a kernel with bridges and veth. Without --netns \
             everything works but cutting links",
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(())
}
