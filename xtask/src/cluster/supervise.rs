//! Keeps the processes running, and `cluster.json` true.

use std::{cell::RefCell, path::PathBuf, process::Stdio, rc::Rc, time::Duration};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};

use super::{
    file::{ClusterFile, Process, Role},
    plan::Plan,
};

/// How long a process may take to end when it is asked to.
const END_TIMEOUT: Duration = Duration::from_secs(40);
/// After which a process that ended is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The running cluster.
pub struct State {
    plan: Plan,
    file: RefCell<ClusterFile>,
    path: PathBuf,
    /// Up to which stage processes are to end.
    stage: watch::Sender<u8>,
    failed: watch::Sender<Option<String>>,
    /// Of each process, with its stage.
    tasks: RefCell<Vec<(u8, JoinHandle<()>)>>,
}

impl State {
    /// Nothing runs yet.
    pub fn new(plan: Plan, path: PathBuf) -> Result<Rc<Self>> {
        for p in &plan.file.processes {
            std::fs::create_dir_all(&p.folder).with_context(|| p.folder.display().to_string())?;
            let _ = std::fs::remove_file(p.folder.join("stopped"));
            if let Some(clock) = &p.clock_file {
                std::fs::write(clock, "+0\n")?;
            }
        }
        if let Some(objects) = plan.file.object_store.url.strip_prefix("file://") {
            std::fs::create_dir_all(objects).with_context(|| objects.to_owned())?;
        }
        let file = RefCell::new(plan.file.clone());
        let (stage, failed) = (watch::channel(0).0, watch::channel(None).0);
        Ok(Rc::new(Self { plan, file, path, stage, failed, tasks: RefCell::default() }))
    }

    /// The file as it is now.
    pub fn file(&self) -> ClusterFile {
        self.file.borrow().clone()
    }

    /// Waits until the cluster can't go on; why.
    pub async fn failure(&self) -> String {
        let mut failed = self.failed.subscribe();
        let found = failed.wait_for(Option::is_some).await;
        found.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// Notes that all processes were ready.
    pub fn set_ready(&self) -> Result<()> {
        self.file.borrow_mut().ready = true;
        self.file.borrow().write(&self.path)
    }

    /// Tells a person where everything is.
    pub fn print(&self) {
        let file = self.file.borrow();
        for p in &file.processes {
            let listeners: Vec<String> = p.listeners.iter().map(|(n, a)| format!("{n} {a}")).collect();
            println!("  {:<20} {:>8}  {}", p.name, p.pid.unwrap_or(0), listeners.join("  "));
        }
        println!("ready: {}", self.path.display());
    }

    /// Starts the processes of some roles, each with a task on the current thread that keeps it running.
    pub fn start(self: &Rc<Self>, of: impl Fn(Role) -> bool) {
        for p in self.file().processes.into_iter().filter(|p| of(p.role)) {
            let (state, stage) = (self.clone(), p.role.stage());
            let task = tokio::task::spawn_local(async move { state.supervise(p).await });
            self.tasks.borrow_mut().push((stage, task));
        }
    }

    /// Ends all processes, those that need others first.
    pub async fn end(&self) {
        let mut tasks = self.tasks.take();
        for stage in 1..=3 {
            self.stage.send_replace(stage);
            for (_, task) in tasks.extract_if(.., |(of, _)| *of <= stage) {
                let _ = task.await;
            }
        }
    }

    async fn supervise(&self, p: Process) {
        let mut stage = self.stage.subscribe();
        let mut ended = async || {
            let _ = stage.wait_for(|s| *s >= p.role.stage()).await;
        };
        let stopped = p.folder.join("stopped");
        loop {
            while stopped.exists() {
                tokio::select! {
                    () = ended() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
            let mut child = match self.spawn(&p) {
                Ok(child) => child,
                Err(e) => {
                    self.failed.send_replace(Some(format!("{}: {e:#}", p.name)));
                    return;
                }
            };
            self.note(&p.name, child.id());
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    let log = std::fs::read_to_string(p.folder.join("log.txt")).unwrap_or_default();
                    eprintln!("{} ended: {status}: {}", p.name, log.lines().last().unwrap_or(""));
                    self.note(&p.name, None);
                    if p.role == Role::ObjectStore {
                        let log = p.folder.join("log.txt");
                        let why = format!("the S3 server ended, and with it what it held; see {}", log.display());
                        self.failed.send_replace(Some(why));
                        return;
                    }
                    tokio::select! {
                        () = ended() => return,
                        () = tokio::time::sleep(RESTART_AFTER) => {}
                    }
                }
                () = ended() => {
                    end(&mut child).await;
                    self.note(&p.name, None);
                    return;
                }
            }
        }
    }

    fn spawn(&self, p: &Process) -> Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(p.folder.join("log.txt"))?;
        let line = self.plan.command(p)?;
        let (program, arguments) = line.split_first().context("no command")?;
        let mut command = Command::new(program);
        // In a group of its own: a signal from the keyboard is for this process, which ends them in order.
        command.args(arguments).current_dir(&p.folder).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("start {}", line.join(" ")))
    }

    fn note(&self, name: &str, pid: Option<u32>) {
        let mut file = self.file.borrow_mut();
        for p in file.processes.iter_mut().filter(|p| p.name == name) {
            p.pid = pid;
        }
        if let Err(e) = file.write(&self.path) {
            eprintln!("{e:#}");
        }
    }
}

/// Asks a process to end, and makes it where it does not.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
        let _ = kill_process(pid, Signal::TERM);
        // It may have been stopped.
        let _ = kill_process(pid, Signal::CONT);
    }
    if tokio::time::timeout(END_TIMEOUT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;
    use crate::cluster::file::ObjectStore;

    fn process(dir: &Path, name: &str, role: Role) -> Process {
        Process {
            name: name.to_owned(),
            role,
            pid: None,
            folder: dir.join(name),
            listeners: BTreeMap::new(),
            netns: None,
            zone: String::new(),
            disk: None,
            clock_file: None,
        }
    }

    /// Processes that are a script: it notes its start and waits.
    fn state(dir: &Path, script: &str) -> Rc<State> {
        let binary = dir.join("script");
        std::fs::write(&binary, script).unwrap();
        let done = std::process::Command::new("chmod").arg("+x").arg(&binary).status().unwrap();
        assert!(done.success());
        let file = ClusterFile {
            version: 1,
            name: "x".to_owned(),
            replication: 1,
            shards: 1,
            ready: false,
            object_store: ObjectStore::default(),
            processes: vec![
                process(dir, "ingester-1", Role::Ingester),
                process(dir, "querier-1", Role::Querier),
            ],
        };
        State::new(Plan::of(file, binary), dir.join("cluster.json")).unwrap()
    }

    fn pid(dir: &Path, name: &str) -> Option<u32> {
        let file = ClusterFile::read(&dir.join("cluster.json")).ok()?;
        file.processes.into_iter().find(|p| p.name == name).unwrap().pid
    }

    async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn is_alive(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    fn signal(pid: u32, signal: Signal) {
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }

    #[test]
    fn processes_start_again_unless_they_are_stopped_and_end_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let order = dir.path().join("order");
        let script = format!(
            "#!/bin/sh\ntrap 'echo \"$1\" >>{}; exit 0' TERM\nwhile :; do sleep 0.05; done\n",
            order.display()
        );
        let state = state(dir.path(), &script);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            state.start(|_| true);
            let first = eventually(|| pid(dir.path(), "querier-1")).await;
            let ingester = eventually(|| pid(dir.path(), "ingester-1")).await;
            signal(first, Signal::KILL);
            let second = eventually(|| pid(dir.path(), "querier-1").filter(|p| *p != first)).await;

            let stopped = dir.path().join("querier-1/stopped");
            std::fs::write(&stopped, "").unwrap();
            signal(second, Signal::KILL);
            eventually(|| pid(dir.path(), "querier-1").is_none().then_some(())).await;
            tokio::time::sleep(RESTART_AFTER + LOOK_EVERY * 3).await;
            assert_eq!(pid(dir.path(), "querier-1"), None);
            std::fs::remove_file(&stopped).unwrap();
            let third = eventually(|| pid(dir.path(), "querier-1")).await;
            assert_eq!(pid(dir.path(), "ingester-1"), Some(ingester));

            // A shell notes its trap a moment after its start, and a stopped one ends all the same.
            tokio::time::sleep(Duration::from_millis(500)).await;
            signal(third, Signal::STOP);
            state.end().await;
            assert!(!is_alive(third) && !is_alive(ingester));
        });
        assert_eq!(std::fs::read_to_string(order).unwrap(), "querier\ningester\n");
        assert!(
            ClusterFile::read(&dir.path().join("cluster.json"))
                .unwrap()
                .processes
                .iter()
                .all(|p| p.pid.is_none())
        );
    }
}
