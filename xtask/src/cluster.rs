//! A whole cluster on one machine: an object store, then each role as a process with its own folder and ports, all of which end
//! with this process. `cluster.json` tells others where they are.

mod file;
mod network;
mod plan;
mod supervise;

use std::{
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    file::{ClusterFile, Role},
    plan::Plan,
    supervise::State,
};
use crate::http;

/// Arguments of `cluster`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the cluster; one of an earlier cluster is emptied first.
    #[arg(long)]
    dir: PathBuf,
    /// Ingesters.
    #[arg(long, default_value_t = 3)]
    ingesters: usize,
    /// Distributors.
    #[arg(long, default_value_t = 2)]
    distributors: usize,
    /// Queriers.
    #[arg(long, default_value_t = 2)]
    queriers: usize,
    /// Compactors.
    #[arg(long, default_value_t = 1)]
    compactors: usize,
    /// Replicas of each shard.
    #[arg(long, default_value_t = 3)]
    replication: u32,
    /// Shards.
    #[arg(long, default_value_t = 4)]
    shards: u32,
    /// The object store: `moto_server`, behind a proxy that can misbehave, or a folder.
    #[arg(long, value_enum, default_value_t = Store::S3)]
    store: Store,
    /// One process with all roles instead of one for each.
    #[arg(long)]
    all_in_one: bool,
    /// Give each process its own network namespace on a bridge, so that links between them can be cut. Takes root.
    #[arg(long)]
    netns: bool,
    /// Give each ingester a disk of this size (a tmpfs, as in `256m`), which can be filled. Takes root.
    #[arg(long, value_name = "SIZE")]
    ingester_disk: Option<String>,
    /// Start each process with libfaketime and a file that moves its clock.
    #[arg(long)]
    clock_steps: bool,
    /// Go on with the data of an earlier cluster in the folder; needs `--store file`.
    #[arg(long)]
    keep: bool,
    /// The sextant binary; default: beside this one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// How long the processes may take until they are ready, seconds.
    #[arg(long, default_value_t = 120)]
    ready_timeout: u64,
    /// When all are ready, run this with `sh -c` and end the cluster behind it, with its exit code. It finds cluster.json's path
    /// in the variable SEXTANT_CLUSTER.
    #[arg(long, value_name = "COMMAND")]
    then: Option<String>,
    /// More flags, for every process of sextant.
    #[arg(last = true)]
    flags: Vec<String>,
}

/// Where blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Store {
    /// An S3 server in memory: it ends with the cluster.
    S3,
    /// The folder `objects`.
    File,
}

/// Runs it until a signal, or until `--then` is done.
pub fn run(args: &Args) -> Result<()> {
    let dir = prepare(args)?;
    let plan = Plan::new(args, &dir)?;
    // First of all, so that the folder is known as a cluster's whatever happens next.
    plan.file.write(&dir.join("cluster.json"))?;
    let network = args.netns.then(|| network::Network::create(&plan.file, &plan.prefix)).transpose()?;
    let disks = Disks::mount(&plan.file, args.ingester_disk.as_deref())?;
    // One thread: the kernel ends children with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, start(args, plan, &dir));
    drop((disks, network));
    match outcome? {
        0 => Ok(()),
        code => std::process::exit(code),
    }
}

/// The folder, empty or with what is kept.
fn prepare(args: &Args) -> Result<PathBuf> {
    if args.keep && args.store != Store::File {
        bail!("--keep needs --store file: the S3 server forgets its objects when it ends");
    }
    std::fs::create_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    let dir = args.dir.canonicalize()?;
    let earlier = dir.join("cluster.json").exists();
    if !earlier && std::fs::read_dir(&dir)?.next().is_some() {
        bail!("{} is neither empty nor of an earlier cluster", dir.display());
    }
    if earlier && let Ok(file) = ClusterFile::read(&dir.join("cluster.json")) {
        if let Some(p) = file.processes.iter().find(|p| p.runs_in_its_folder()) {
            bail!("{} is in use: {} runs as process {}", dir.display(), p.name, p.pid.unwrap_or(0));
        }
        // What an earlier cluster left that was ended with `kill -9`.
        for disk in file.processes.iter().filter_map(|p| p.disk.as_ref()) {
            let _ = Command::new("umount").arg("-l").arg(disk).output();
        }
    }
    if earlier && !args.keep {
        for entry in std::fs::read_dir(&dir)?.flatten() {
            let path = entry.path();
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
                .with_context(|| path.display().to_string())?;
        }
    }
    Ok(dir)
}

/// Mounted tmpfs; unmounted with the value.
struct Disks(Vec<PathBuf>);

impl Disks {
    fn mount(file: &ClusterFile, size: Option<&str>) -> Result<Self> {
        let mut disks = Self(Vec::new());
        let Some(size) = size else { return Ok(disks) };
        for disk in file.processes.iter().filter_map(|p| p.disk.clone()) {
            std::fs::create_dir_all(&disk)?;
            let options = format!("size={size}");
            let done =
                Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&disk).output()?;
            if !done.status.success() {
                bail!(
                    "--ingester-disk: no tmpfs at {}: {}; it takes root",
                    disk.display(),
                    String::from_utf8_lossy(&done.stderr).trim()
                );
            }
            disks.0.push(disk);
        }
        Ok(disks)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in &self.0 {
            let _ = Command::new("umount").arg("-l").arg(disk).status();
        }
    }
}

/// Starts all, waits for a signal or for `--then`, ends all. Returns the exit code.
async fn start(args: &Args, plan: Plan, dir: &Path) -> Result<i32> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let state = State::new(plan, dir.join("cluster.json"))?;
    let work = async {
        let until = Instant::now() + Duration::from_secs(args.ready_timeout);
        for sextant in [false, true] {
            state.start(|role| role.is_sextant() == sextant);
            ready(&state, |role| role.is_sextant() == sextant, until).await?;
        }
        state.set_ready()?;
        state.print();
        match &args.then {
            None => std::future::pending().await,
            Some(command) => {
                let mut child = tokio::process::Command::new("sh");
                child
                    .args(["-c", command])
                    .env("SEXTANT_CLUSTER", dir.join("cluster.json"))
                    .kill_on_drop(true);
                Ok::<_, anyhow::Error>(child.status().await?.code().unwrap_or(1))
            }
        }
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        _ = interrupt.recv() => Ok(if args.then.is_some() { 130 } else { 0 }),
        _ = terminate.recv() => Ok(if args.then.is_some() { 143 } else { 0 }),
        why = state.failure() => Err(anyhow::anyhow!(why)),
    };
    eprintln!("ending all processes; once more to end them at once");
    tokio::select! {
        () = state.end() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    outcome
}

/// Waits until the bucket is made and each process of some roles says that it is ready.
async fn ready(state: &Rc<State>, of: impl Fn(Role) -> bool, until: Instant) -> Result<()> {
    let file = state.file();
    let mut waiting: Vec<_> = file.processes.iter().filter(|p| of(p.role)).collect();
    let bucket = file.object_store.bucket();
    let mut why = String::new();
    while !waiting.is_empty() {
        let mut still = Vec::new();
        for p in waiting {
            let http = p.listeners.get("http").map_or("", String::as_str);
            let asked = match (p.role, &bucket) {
                (Role::ObjectStore, Some(bucket)) => {
                    http::call(http, "PUT", &format!("/{bucket}"), b"").await
                }
                // Through the proxy, which is a check of it as well.
                (Role::ObjectStoreProxy, _) => http::call(http, "GET", "/", b"").await,
                _ => http::call(http, "GET", "/ready", b"").await,
            };
            match asked {
                Ok(answer) if answer.status() == 200 => {}
                Ok(answer) => {
                    why = format!("{}: {}", p.name, String::from_utf8_lossy(&answer.body).trim());
                    still.push(p);
                }
                Err(e) => {
                    why = format!("{}: {e:#}", p.name);
                    still.push(p);
                }
            }
        }
        waiting = still;
        if !waiting.is_empty() {
            if Instant::now() > until {
                let log = waiting[0].folder.join("log.txt");
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(20).collect();
                for line in lines.iter().rev() {
                    eprintln!("{}: {line}", waiting[0].name);
                }
                bail!("not ready in time: {why}; see {}", log.display());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}
