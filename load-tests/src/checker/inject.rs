//! Does the faults to the processes, and undoes them.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    clients::Run,
    cluster::{Cluster, Process},
    faults::{Action, Fault},
};
use crate::client::Client;

/// A hardware address that no process has: what is sent to it arrives nowhere, without an error.
const NOWHERE: &str = "02:00:00:00:00:01";
/// What fills a disk.
const FILLER: &str = "checker-filler";

/// Something that was done, or could not be.
pub struct Event {
    /// After the start of the run.
    pub at: Duration,
    /// What.
    pub what: String,
    /// Whether it could be done.
    pub done: bool,
}

/// Injects faults into a cluster. Everything is undone with the value.
pub struct Injector {
    file: PathBuf,
    cluster: Cluster,
}

impl Injector {
    /// For the cluster of a `cluster.json`, which is healed first: an earlier run may have been interrupted.
    pub fn new(file: &Path) -> Result<Self> {
        let injector = Self { file: file.to_owned(), cluster: Cluster::read(file)? };
        injector.heal();
        Ok(injector)
    }

    /// Does the faults at their times, until the run is stopped. Returns what happened when.
    pub fn run(&self, faults: &[Fault], run: &Run) -> Vec<Event> {
        let mut events = Vec::new();
        let mut note = |what: String, outcome: Result<()>| {
            let (at, done) = (run.began.elapsed(), outcome.is_ok());
            let what =
                outcome.map_or_else(|e| format!("{what}: could not be done: {e:#}"), |()| what.clone());
            eprintln!("{:7.1} s  {what}", at.as_secs_f64());
            events.push(Event { at, what, done });
        };
        let wait = |until: Duration| {
            while !run.stop.load(Relaxed) && run.began.elapsed() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        for fault in faults {
            wait(fault.at);
            if run.stop.load(Relaxed) {
                break;
            }
            note(fault.action.to_string(), self.begin(&fault.action));
            wait(fault.at + fault.lasts);
            note(format!("end of: {}", fault.action), self.end(&fault.action));
        }
        events
    }

    fn process(&self, name: &str) -> Result<&Process> {
        self.cluster.processes.iter().find(|p| p.name == name).with_context(|| format!("no process {name}"))
    }

    /// The process as it runs now. One that was just started again may take a moment until it has an id.
    fn pid(&self, name: &str) -> Result<Pid> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let now = Cluster::read(&self.file)?;
            let pid = now.processes.iter().find(|p| p.name == name).and_then(|p| p.pid);
            if let Some(pid) = pid.and_then(|p| Pid::from_raw(p as i32)) {
                return Ok(pid);
            }
            if Instant::now() > until {
                bail!("{name} does not run");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn begin(&self, action: &Action) -> Result<()> {
        match action {
            Action::Kill(name) => {
                let pid = self.pid(name)?;
                std::fs::write(self.process(name)?.folder.join("stopped"), "")?;
                Ok(kill_process(pid, Signal::KILL)?)
            }
            Action::Stop(name) => Ok(kill_process(self.pid(name)?, Signal::STOP)?),
            Action::Cut(pairs) => {
                for (from, to) in pairs {
                    let line = cut_command(self.process(from)?, self.process(to)?)?;
                    let done = Command::new("ip").args(&line).output().context("ip")?;
                    if !done.status.success() {
                        bail!("ip {}: {}", line.join(" "), String::from_utf8_lossy(&done.stderr).trim());
                    }
                }
                Ok(())
            }
            Action::DiskFull(name) => fill(self.process(name)?.disk.as_deref().context("no disk")?),
            Action::Store(mode) => self.store(mode),
            Action::Clock(name, seconds) => self.clock(name, *seconds),
        }
    }

    fn end(&self, action: &Action) -> Result<()> {
        match action {
            Action::Kill(name) => Ok(std::fs::remove_file(self.process(name)?.folder.join("stopped"))?),
            Action::Stop(name) => Ok(kill_process(self.pid(name)?, Signal::CONT)?),
            Action::Cut(pairs) => {
                for (from, to) in pairs {
                    mend(self.process(from)?, self.process(to)?);
                }
                Ok(())
            }
            Action::DiskFull(name) => Ok(std::fs::remove_file(
                self.process(name)?.disk.as_deref().context("no disk")?.join(FILLER),
            )?),
            Action::Store(_) => self.store("pass"),
            Action::Clock(name, _) => self.clock(name, 0),
        }
    }

    fn store(&self, mode: &str) -> Result<()> {
        let control = self.cluster.object_store.control.as_deref().context("no proxy")?;
        let address = control.trim_start_matches("http://");
        let answer = Client::with_timeout(address, Duration::from_secs(5)).request(
            "POST",
            "/mode",
            &[],
            mode.as_bytes(),
        )?;
        if answer.status != 200 {
            bail!("mode {mode}: {}", String::from_utf8_lossy(&answer.body));
        }
        Ok(())
    }

    fn clock(&self, name: &str, seconds: i64) -> Result<()> {
        let file = self.process(name)?.clock_file.as_deref().context("no clock")?;
        // In one step: the process may read it at any moment.
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(&new, file)?)
    }

    /// Undoes every fault that there may be.
    pub fn heal(&self) {
        // Nothing to undo is no error.
        for p in self.cluster.processes.iter().filter(|p| p.is_sextant()) {
            let _ = std::fs::remove_file(p.folder.join("stopped"));
            if let Some(disk) = &p.disk {
                let _ = std::fs::remove_file(disk.join(FILLER));
            }
            if p.clock_file.is_some() {
                let _ = self.clock(&p.name, 0);
            }
        }
        for p in Cluster::read(&self.file).iter().flat_map(|c| &c.processes).filter(|p| p.is_sextant()) {
            if let Some(pid) = p.pid.and_then(|pid| Pid::from_raw(pid as i32)) {
                let _ = kill_process(pid, Signal::CONT);
            }
        }
        for from in &self.cluster.processes {
            for to in self.cluster.processes.iter().filter(|to| to.netns != from.netns) {
                mend(from, to);
            }
        }
        if self.cluster.object_store.control.is_some() {
            let _ = self.store("pass");
        }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        self.heal();
    }
}

/// Arguments of `ip` after which what `from` sends to `to` gets lost, on connections that are open and on new ones.
fn cut_command(from: &Process, to: &Process) -> Result<Vec<String>> {
    let netns = from.netns.as_deref().with_context(|| format!("{} has no network namespace", from.name))?;
    let line = format!("-n {netns} neigh replace {} lladdr {NOWHERE} dev eth0 nud permanent", to.host());
    Ok(line.split(' ').map(str::to_owned).collect())
}

fn mend(from: &Process, to: &Process) {
    if let Some(netns) = &from.netns {
        // Refused where the link was not cut.
        let line = format!("-n {netns} neigh del {} dev eth0", to.host());
        let _ = Command::new("ip").args(line.split(' ')).output();
    }
}

/// Takes all space of a file system.
fn fill(disk: &Path) -> Result<()> {
    let path = disk.join(FILLER);
    let mut file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
    let full = |e: &std::io::Error| e.kind() == std::io::ErrorKind::StorageFull;
    for size in [1 << 20, 4096, 1] {
        let block = vec![1u8; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(e) if full(&e) => break,
                Err(e) => {
                    drop(std::fs::remove_file(&path));
                    bail!("{}: the disk could not be filled: {e}", path.display());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Child};

    use super::{super::cluster::example, *};

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    fn state(pid: u32) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    #[test]
    fn processes_are_killed_and_stopped_and_everything_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let (mut killed, mut stopped) = (sleeper(), sleeper());
        let [a, b] = ["ingester-1", "querier-1"].map(|n| dir.path().join(n));
        let json = serde_json::json!({"name": "x", "replication": 1, "shards": 1, "object_store": {"url": "file:///x"},
            "processes": [
                {"name": "ingester-1", "role": "ingester", "pid": killed.id(), "folder": a, "listeners": {},
                 "clock_file": a.join("clock")},
                {"name": "querier-1", "role": "querier", "pid": stopped.id(), "folder": b, "listeners": {}}]});
        let file = dir.path().join("cluster.json");
        for folder in [&a, &b] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(&file, json.to_string()).unwrap();
        let injector = Injector::new(&file).unwrap();
        injector.begin(&Action::Kill("ingester-1".to_owned())).unwrap();
        assert!(a.join("stopped").exists());
        assert_eq!(killed.wait().unwrap().signal(), Some(9));
        injector.begin(&Action::Stop("querier-1".to_owned())).unwrap();
        while state(stopped.id()) != 'T' {
            std::thread::sleep(Duration::from_millis(5));
        }
        injector.begin(&Action::Clock("ingester-1".to_owned(), -90)).unwrap();
        assert_eq!(std::fs::read_to_string(a.join("clock")).unwrap(), "-90\n");
        assert!(injector.begin(&Action::Store("refuse".to_owned())).is_err());
        drop(injector);
        assert!(!a.join("stopped").exists());
        assert_eq!(std::fs::read_to_string(a.join("clock")).unwrap(), "+0\n");
        while state(stopped.id()) == 'T' {
            std::thread::sleep(Duration::from_millis(5));
        }
        stopped.kill().unwrap();
        stopped.wait().unwrap();
    }

    #[test]
    fn a_cut_is_one_way_and_by_address() {
        let cluster = example(Path::new("/x"));
        let line = cut_command(&cluster.processes[1], &cluster.processes[2]).unwrap().join(" ");
        assert_eq!(
            line,
            "-n ns-ingester-1 neigh replace 10.1.1.4 lladdr 02:00:00:00:00:01 dev eth0 nud permanent"
        );
        assert!(cut_command(&Process::default(), &cluster.processes[2]).is_err());
    }

    /// A network namespace with a link to this one; removed with the value.
    struct Namespace(String);

    impl Namespace {
        /// `None`, and why, where the system does not allow it.
        fn create(subnet: &str) -> Option<Self> {
            let name = format!("sxt{}", std::process::id());
            let namespace = Self(name.clone());
            for line in [
                format!("netns add {name}"),
                format!("link add {name} type veth peer name eth0 netns {name}"),
                format!("addr add {subnet}.1/24 dev {name}"),
                format!("link set {name} up"),
                format!("-n {name} addr add {subnet}.2/24 dev eth0"),
                format!("-n {name} link set eth0 up"),
            ] {
                match Command::new("ip").args(line.split(' ')).output() {
                    Ok(done) if done.status.success() => {}
                    Ok(done) => {
                        println!("skipped: ip {line}: {}", String::from_utf8_lossy(&done.stderr).trim());
                        return None;
                    }
                    Err(e) => {
                        println!("skipped: ip: {e}");
                        return None;
                    }
                }
            }
            Some(namespace)
        }

        /// A process in it that connects to an address and sends what it reads.
        fn sender(&self, address: std::net::SocketAddr) -> Child {
            let script = format!("exec cat >/dev/tcp/{}/{}", address.ip(), address.port());
            Command::new("nsenter")
                .args([&format!("--net=/run/netns/{}", self.0), "bash", "-c", &script])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        }
    }

    impl Drop for Namespace {
        fn drop(&mut self) {
            for what in ["link", "netns"] {
                let _ = Command::new("ip").args([what, "del", &self.0]).output();
            }
        }
    }

    #[test]
    fn a_cut_link_carries_nothing_on_open_and_on_new_connections_until_it_is_mended() {
        use std::io::Read;
        let subnet = format!("10.250.{}", std::process::id() % 250);
        let Some(namespace) = Namespace::create(&subnet) else { return };
        let listener = std::net::TcpListener::bind(format!("{subnet}.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let process = |host: u8, netns| Process {
            netns,
            listeners: [("http".to_owned(), format!("{subnet}.{host}:1"))].into(),
            ..Process::default()
        };
        let (from, to) = (process(2, Some(namespace.0.clone())), process(1, None));
        let mut letter = [0];
        let mut old = namespace.sender(address);
        let (mut open, _) = listener.accept().unwrap();
        old.stdin.as_mut().unwrap().write_all(b"a").unwrap();
        open.read_exact(&mut letter).unwrap();

        let line = cut_command(&from, &to).unwrap();
        assert!(Command::new("ip").args(line).status().unwrap().success());
        old.stdin.as_mut().unwrap().write_all(b"b").unwrap();
        let new = namespace.sender(address);
        listener.set_nonblocking(true).unwrap();
        open.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        assert!(open.read_exact(&mut letter).is_err(), "cut");
        assert!(listener.accept().is_err(), "cut");

        mend(&from, &to);
        open.set_read_timeout(None).unwrap();
        open.read_exact(&mut letter).unwrap();
        assert_eq!(letter, *b"b");
        listener.set_nonblocking(false).unwrap();
        drop(listener.accept().unwrap());
        for mut sender in [old, new] {
            drop(sender.stdin.take());
            sender.wait().unwrap();
        }
    }
}
