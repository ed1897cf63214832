//! Which processes there are, where they listen, and the command line of each.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    Args, Store,
    file::{ClusterFile, ObjectStore, Process, Role},
};

/// What is to be started.
#[derive(Debug)]
pub struct Plan {
    /// As it will be written.
    pub file: ClusterFile,
    /// Begins every name that the system knows: of namespaces, links, and the cluster.
    pub prefix: String,
    binary: PathBuf,
    faketime: Option<PathBuf>,
    flags: Vec<String>,
}

const BUCKET: &str = "blocks";

impl Plan {
    /// A plan for a folder, which is absolute.
    pub fn new(args: &Args, dir: &Path) -> Result<Self> {
        let number = number_of(dir);
        let prefix = format!("sx{number:04x}");
        let beside = std::env::current_exe()?.parent().map(|p| p.join("sextant")).unwrap_or_default();
        let binary = args.binary.clone().unwrap_or(beside);
        let binary = binary.canonicalize().with_context(|| {
            format!("{}: build it with `cargo build -p sextant`, or give --binary", binary.display())
        })?;
        let faketime = args.clock_steps.then(libfaketime).transpose()?;
        let kept = match args.keep {
            true => ClusterFile::read(&dir.join("cluster.json")).ok(),
            false => None,
        };
        let mut addresses = Addresses { netns: args.netns.then_some(number), ports: Ports::new(), kept };

        let mut processes = Vec::new();
        let counts: &[(Role, usize)] = if args.all_in_one {
            &[(Role::All, 1)]
        } else {
            &[
                (Role::Ingester, args.ingesters),
                (Role::Distributor, args.distributors),
                (Role::Querier, args.queriers),
                (Role::Compactor, args.compactors),
            ]
        };
        let s3 = args.store == Store::S3;
        let store = [(Role::ObjectStore, usize::from(s3)), (Role::ObjectStoreProxy, usize::from(s3))];
        for &(role, count) in store.iter().chain(counts) {
            for i in 1..=count {
                let name =
                    if role.is_sextant() { format!("{}-{i}", word(role)) } else { word(role).to_owned() };
                let folder = dir.join(&name);
                let limited = matches!(role, Role::Ingester | Role::All) && args.ingester_disk.is_some();
                processes.push(Process {
                    // The store is one machine, whatever runs on it.
                    netns: args.netns.then(|| match role.is_sextant() {
                        true => format!("{prefix}-{}{i}", &word(role)[..1]),
                        false => format!("{prefix}-os"),
                    }),
                    listeners: addresses.of(&name, role, i)?,
                    pid: None,
                    zone: char::from(b'a' + ((i - 1) % 3) as u8).to_string(),
                    disk: limited.then(|| folder.join("data")),
                    clock_file: (faketime.is_some() && role.is_sextant()).then(|| folder.join("clock")),
                    name,
                    role,
                    folder,
                });
            }
        }
        let listener = |role: Role, name: &str| {
            let p = processes.iter().find(|p| p.role == role)?;
            Some(format!("http://{}", p.listeners.get(name)?))
        };
        let object_store = match args.store {
            Store::File => {
                let objects = dir.join("objects");
                ObjectStore { url: format!("file://{}", objects.display()), ..ObjectStore::default() }
            }
            Store::S3 => ObjectStore {
                url: format!("s3://{BUCKET}/{prefix}"),
                endpoint: listener(Role::ObjectStoreProxy, "http"),
                direct: listener(Role::ObjectStore, "http"),
                control: listener(Role::ObjectStoreProxy, "control"),
                access_key_id: Some("test".to_owned()),
                secret_access_key: Some("test".to_owned()),
            },
        };
        let file = ClusterFile {
            version: 1,
            name: prefix.clone(),
            replication: if args.all_in_one { 1 } else { args.replication },
            shards: args.shards,
            ready: false,
            object_store,
            processes,
        };
        Ok(Self { file, prefix, binary, faketime, flags: args.flags.clone() })
    }

    /// Program and arguments of a process, which ends with the thread that starts it.
    pub fn command(&self, p: &Process) -> Result<Vec<String>> {
        let mut line = Vec::new();
        if let Some(netns) = &p.netns {
            line.extend(["nsenter".to_owned(), format!("--net=/run/netns/{netns}"), "--".to_owned()]);
        }
        line.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
        if let (Some(library), Some(file)) = (&self.faketime, &p.clock_file) {
            line.extend([
                "env".to_owned(),
                format!("LD_PRELOAD={}", library.display()),
                format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
                // What measures time spans stays right, as with a clock that is set.
                "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
                "FAKETIME_CACHE_DURATION=1".to_owned(),
            ]);
        }
        let listener =
            |name: &str| p.listeners.get(name).cloned().with_context(|| format!("{}: {name}", p.name));
        match p.role {
            Role::ObjectStore => {
                let http = listener("http")?;
                let (host, port) = http.rsplit_once(':').context("host:port")?;
                line.extend(["moto_server", "-H", host, "-p", port].map(str::to_owned));
            }
            Role::ObjectStoreProxy => {
                let direct = self.file.object_store.direct.as_deref().context("no S3 server")?;
                line.push(std::env::current_exe()?.display().to_string());
                line.push("store-proxy".to_owned());
                line.push(format!("--listen={}", listener("http")?));
                line.push(format!("--control={}", listener("control")?));
                line.push(format!("--upstream={}", direct.trim_start_matches("http://")));
            }
            _ => {
                line.push(self.binary.display().to_string());
                line.extend(p.role.command().map(str::to_owned));
                line.extend(self.sextant_flags(p));
            }
        }
        Ok(line)
    }

    /// Any processes and binary, for tests.
    #[cfg(test)]
    pub fn of(file: ClusterFile, binary: PathBuf) -> Self {
        Self { file, prefix: "x".to_owned(), binary, faketime: None, flags: Vec::new() }
    }

    fn sextant_flags(&self, p: &Process) -> Vec<String> {
        let mut flags = vec![
            format!("--data-dir={}", p.folder.join("data").display()),
            "--agent.host-metrics=false".to_owned(),
            format!("--ingester.shards={}", self.file.shards),
            format!("--object-store={}", self.file.object_store.url),
        ];
        for (name, address) in &p.listeners {
            let key = match name.as_str() {
                "otlp_grpc" => "otlp.grpc",
                "otlp_http" => "otlp.http",
                "flight" => "grpc",
                other => other,
            };
            flags.push(format!("--{key}.listen={address}"));
        }
        if p.role != Role::All {
            let peers: Vec<&str> = self
                .file
                .processes
                .iter()
                .filter(|p| p.role == Role::Ingester)
                .filter_map(|p| p.listeners.get("cluster").map(String::as_str))
                .collect();
            flags.push(format!("--cluster.name={}", self.file.name));
            flags.push(format!("--cluster.node-name={}", p.name));
            flags.push(format!("--cluster.zone={}", p.zone));
            flags.push(format!("--cluster.peers={}", peers.join(",")));
            flags.push(format!("--cluster.replication={}", self.file.replication));
        }
        let store = &self.file.object_store;
        if let (Some(endpoint), Some(id), Some(secret)) =
            (&store.endpoint, &store.access_key_id, &store.secret_access_key)
        {
            flags.push(format!("--s3.endpoint={endpoint}"));
            flags.push("--s3.region=us-east-1".to_owned());
            flags.push("--s3.allow-http=true".to_owned());
            flags.push(format!("--s3.access-key-id={id}"));
            flags.push(format!("--s3.secret-access-key={secret}"));
        }
        const SEGMENT: &str = "--ingester.log-segment-size";
        if p.disk.is_some() && !self.flags.iter().any(|f| f.starts_with(SEGMENT)) {
            // The disk is small, and a segment takes its whole size at once.
            flags.push(format!("{SEGMENT}=1MiB"));
        }
        flags.extend(self.flags.iter().cloned());
        flags
    }
}

/// A number that differs between the clusters of a machine.
fn number_of(dir: &Path) -> u16 {
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    hasher.finish() as u16
}

fn word(role: Role) -> &'static str {
    match role {
        Role::All => "all",
        Role::Distributor => "distributor",
        Role::Ingester => "ingester",
        Role::Querier => "querier",
        Role::Compactor => "compactor",
        Role::ObjectStore => "object-store",
        Role::ObjectStoreProxy => "object-store-proxy",
    }
}

/// The part of the network that is a cluster's: `10.x.y`.
pub fn subnet(number: u16) -> String {
    format!("10.{}.{}", 64 + number % 128, number / 128 % 256)
}

/// Names and ports of a role's listeners; the ports are those of a namespace of its own.
fn listeners(role: Role) -> &'static [(&'static str, u16)] {
    match role {
        Role::Ingester | Role::Compactor => &[("http", 9009), ("cluster", 9011)],
        Role::Distributor => &[("http", 9009), ("cluster", 9011), ("otlp_grpc", 4317), ("otlp_http", 4318)],
        Role::Querier => &[("http", 9009), ("cluster", 9011), ("flight", 9010), ("postgres", 9432)],
        Role::All => {
            &[("http", 9009), ("flight", 9010), ("otlp_grpc", 4317), ("otlp_http", 4318), ("postgres", 9432)]
        }
        Role::ObjectStore => &[("http", 9000)],
        Role::ObjectStoreProxy => &[("http", 9100), ("control", 9101)],
    }
}

struct Addresses {
    /// The cluster's number where each process has a namespace.
    netns: Option<u16>,
    ports: Ports,
    /// An earlier cluster, whose processes are found where they were.
    kept: Option<ClusterFile>,
}

impl Addresses {
    fn of(&mut self, name: &str, role: Role, i: usize) -> Result<BTreeMap<String, String>> {
        let kept =
            self.kept.as_ref().and_then(|f| f.processes.iter().find(|p| p.name == name && p.role == role));
        if let Some(p) = kept {
            return Ok(p.listeners.clone());
        }
        let mut out = BTreeMap::new();
        for &(listener, port) in listeners(role) {
            let address = match self.netns {
                Some(number) => format!("{}.{}:{port}", subnet(number), host_of(role, i)?),
                None => format!("127.0.0.1:{}", self.ports.next()?),
            };
            out.insert(listener.to_owned(), address);
        }
        Ok(out)
    }
}

/// The last number of an address.
fn host_of(role: Role, i: usize) -> Result<usize> {
    let base = match role {
        Role::ObjectStore | Role::ObjectStoreProxy => 2,
        Role::All => 10,
        Role::Ingester => 20,
        Role::Distributor => 60,
        Role::Querier => 100,
        Role::Compactor => 140,
    };
    if i > 40 {
        bail!("more than 40 processes of a role");
    }
    Ok(base + i - 1)
}

/// Free ports below those that the system gives to outgoing connections: these would be taken while a process is down.
struct Ports {
    next: u16,
    end: u16,
}

impl Ports {
    fn new() -> Self {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let end = range.split_whitespace().next().and_then(|n| n.parse().ok()).filter(|e| *e > 12_000);
        let end = end.unwrap_or(32_768);
        // Clusters that are started at the same time begin elsewhere.
        let start = 10_000 + (std::process::id() * 97 % u32::from(end - 10_000)) as u16;
        Self { next: start, end }
    }

    fn next(&mut self) -> Result<u16> {
        for _ in 10_000..self.end {
            let port = self.next;
            self.next = if port + 1 < self.end { port + 1 } else { 10_000 };
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(port);
            }
        }
        bail!("no free port from 10000 to {}", self.end)
    }
}

/// The library that moves clocks, installed or unpacked beside a folder of `PATH`.
fn libfaketime() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::split_paths(&path).map(|p| p.join("../lib"));
    for lib in std::iter::once(PathBuf::from("/usr/lib")).chain(beside) {
        for entry in std::fs::read_dir(&lib).into_iter().flatten().flatten() {
            let file = entry.path().join("faketime/libfaketimeMT.so.1");
            if let Ok(file) = file.canonicalize() {
                return Ok(file);
            }
        }
    }
    bail!("--clock-steps: no libfaketimeMT.so.1; it is in Debian's package libfaketime")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn plan(dir: &Path, more: &[&str]) -> Plan {
        let binary = std::env::current_exe().unwrap();
        let mut words = vec!["x".to_owned(), format!("--dir={}", dir.display())];
        words.push(format!("--binary={}", binary.display()));
        words.extend(more.iter().map(|w| (*w).to_owned()));
        Plan::new(&Cli::parse_from(words).args, dir).unwrap()
    }

    fn line(plan: &Plan, name: &str) -> String {
        let p = plan.file.processes.iter().find(|p| p.name == name).unwrap();
        plan.command(p).unwrap().join(" ")
    }

    #[test]
    fn the_default_is_three_two_two_one_behind_an_s3_server() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), &["--", "--log.level=debug"]);
        let names: Vec<&str> = plan.file.processes.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "object-store",
                "object-store-proxy",
                "ingester-1",
                "ingester-2",
                "ingester-3",
                "distributor-1",
                "distributor-2",
                "querier-1",
                "querier-2",
                "compactor-1"
            ]
        );
        let addresses: Vec<&String> = plan.file.processes.iter().flat_map(|p| p.listeners.values()).collect();
        let mut unique = addresses.clone();
        unique.sort();
        unique.dedup();
        assert_eq!((unique.len(), addresses.len()), (3 + 3 * 2 + 2 * 4 + 2 * 4 + 2, unique.len()));
        let querier = line(&plan, "querier-2");
        let listeners = &plan.file.processes[8].listeners;
        for part in [
            "setpriv --pdeathsig KILL -- /".to_owned(),
            " querier --data-dir=".to_owned(),
            format!("--grpc.listen={}", listeners["flight"]),
            format!("--cluster.listen={}", listeners["cluster"]),
            "--cluster.node-name=querier-2 --cluster.zone=b ".to_owned(),
            "--cluster.replication=3".to_owned(),
            "--ingester.shards=4".to_owned(),
            format!("--object-store=s3://blocks/{} ", plan.prefix),
            format!("--s3.endpoint=http://{}", plan.file.processes[1].listeners["http"]),
            " --log.level=debug".to_owned(),
        ] {
            assert!(querier.contains(&part), "{part:?} is not in\n{querier}");
        }
        assert!(!querier.contains("nsenter") && !querier.contains("otlp"));
        let peers = plan.file.processes[2..5].iter().map(|p| p.listeners["cluster"].clone());
        let peers = format!("--cluster.peers={} ", peers.collect::<Vec<_>>().join(","));
        assert!(line(&plan, "ingester-1").contains(&peers) && querier.contains(&peers));
        assert!(line(&plan, "object-store").contains("moto_server -H 127.0.0.1 -p "));
        assert!(line(&plan, "object-store-proxy").contains(" store-proxy --listen=127.0.0.1:"));
    }

    #[test]
    fn namespaces_have_addresses_of_their_own_and_the_stores_processes_share_one() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), &["--netns", "--ingester-disk=64m"]);
        let number = number_of(dir.path());
        let of = |name: &str| plan.file.processes.iter().find(|p| p.name == name).unwrap();
        assert_eq!(of("ingester-2").listeners["http"], format!("{}.21:9009", subnet(number)));
        assert_eq!(of("object-store").netns, of("object-store-proxy").netns);
        let netns = of("querier-1").netns.clone().unwrap();
        assert!(netns.len() <= 15 && netns.starts_with(&plan.prefix), "{netns}: a link's name has 15 bytes");
        assert!(
            line(&plan, "querier-1").starts_with(&format!("nsenter --net=/run/netns/{netns} -- setpriv"))
        );
        assert_eq!(of("ingester-1").disk.as_deref(), Some(&*of("ingester-1").folder.join("data")));
        assert_eq!(of("querier-1").disk, None);
    }

    #[test]
    fn all_in_one_has_no_cluster_flags_and_kept_clusters_keep_their_ports() {
        let dir = tempfile::tempdir().unwrap();
        let one = plan(dir.path(), &["--all-in-one", "--store=file", "--shards=2"]);
        let all = line(&one, "all-1");
        assert!(!all.contains("cluster") && all.contains("--ingester.shards=2"), "{all}");
        assert_eq!(one.file.replication, 1);
        assert_eq!(one.file.object_store.bucket(), None);
        one.file.write(&dir.path().join("cluster.json")).unwrap();
        assert_eq!(ClusterFile::read(&dir.path().join("cluster.json")).unwrap(), one.file);
        let kept = plan(dir.path(), &["--all-in-one", "--store=file", "--keep"]);
        assert_eq!(kept.file.processes[0].listeners, one.file.processes[0].listeners);
    }
}
