//! A server's process: CPU time, peak memory, bytes on disk; and starting and ending one.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// CPU time (user and system) that a process had used at a moment.
#[derive(Clone, Debug)]
pub struct CpuMark {
    pid: u32,
    /// In units of 10 ms, of threads that have ended too.
    coarse_s: f64,
    /// Nanoseconds of each live thread.
    threads: HashMap<String, u64>,
}

impl CpuMark {
    /// Now.
    pub fn now(pid: u32) -> Result<Self> {
        let stat =
            std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
        let [user, system] = [11, 12].map(|i| fields.get(i).and_then(|f| f.parse::<u64>().ok()));
        let ticks = user.context("stat")? + system.context("stat")?;
        Ok(Self { pid, coarse_s: ticks as f64 / TICKS_PER_SECOND, threads: threads(pid) })
    }

    /// CPU seconds used since.
    pub fn seconds_since(&self) -> Result<f64> {
        let now = Self::now(self.pid)?;
        let coarse = now.coarse_s - self.coarse_s;
        let fine = now
            .threads
            .iter()
            .map(|(id, ns)| ns.saturating_sub(self.threads.get(id).copied().unwrap_or(0)))
            .sum::<u64>() as f64
            / 1e9;
        Ok(combine(coarse, fine))
    }
}

/// Kernels count process times in this unit for user space, whatever their own is.
const TICKS_PER_SECOND: f64 = 100.0;

/// The fine figure where the coarse one agrees with it; it lacks threads that ended in between, and kernels without scheduler
/// statistics have none.
fn combine(coarse: f64, fine: f64) -> f64 {
    if fine > 0.0 && (fine - coarse).abs() <= 0.03 + 0.02 * coarse { fine } else { coarse }
}

fn threads(pid: u32) -> HashMap<String, u64> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|e| {
            let text = std::fs::read_to_string(e.path().join("schedstat")).ok()?;
            let ns = text.split_whitespace().next()?.parse().ok()?;
            Some((e.file_name().to_string_lossy().into_owned(), ns))
        })
        .collect()
}

/// A process's memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Most that was resident so far.
    pub peak: u64,
    /// Resident now.
    pub resident: u64,
    /// Of it, what is no file's: heap and stacks.
    pub anonymous: u64,
}

/// A process's memory.
pub fn memory(pid: u32) -> Result<Memory> {
    parse_memory(&std::fs::read_to_string(format!("/proc/{pid}/status"))?)
}

fn parse_memory(status: &str) -> Result<Memory> {
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).with_context(|| name.to_owned())?;
        Ok::<_, anyhow::Error>(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? * 1024)
    };
    Ok(Memory { peak: field("VmHWM:")?, resident: field("VmRSS:")?, anonymous: field("RssAnon:")? })
}

/// Bytes of the files below a folder.
pub fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => folder_bytes(&e.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

/// A server that the benchmark started; it ends with the value.
pub struct Server {
    child: Child,
    /// Its data.
    pub folder: PathBuf,
}

impl Server {
    /// Starts a program with arguments; its output goes to a file in its folder.
    pub fn start(program: &Path, args: &[String], folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let log = std::fs::File::create(folder.with_extension("log"))?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, folder: folder.to_owned() })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server answers a path with 200.
    pub fn wait_ready(&mut self, address: &str, path: &str) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended: {status}; see {}", self.folder.with_extension("log").display());
            }
            if let Ok(a) = crate::client::Client::new(address).request("GET", path, &[], b"")
                && a.status == 200
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the server at {address} was not ready within a minute")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_of_a_process_is_fine_unless_threads_ended() {
        for (coarse, fine, expected) in [
            (0.01, 0.0043, 0.0043),
            (0.0, 0.0012, 0.0012),
            (5.0, 3.0, 5.0),
            (1.0, 0.0, 1.0),
            (10.0, 9.9, 9.9),
        ] {
            assert_eq!(combine(coarse, fine), expected, "{coarse} {fine}");
        }
        let mark = CpuMark::now(std::process::id()).unwrap();
        assert!(mark.seconds_since().unwrap() >= 0.0);
        assert!(CpuMark::now(u32::MAX).is_err());
    }

    #[test]
    fn memory_is_read_from_a_status_file() {
        let status =
            "Name:\tx\nVmHWM:\t    300 kB\nVmRSS:\t    200 kB\nRssAnon:\t    100 kB\nRssFile:\t 100 kB\n";
        let expected = Memory { peak: 300 << 10, resident: 200 << 10, anonymous: 100 << 10 };
        assert_eq!(parse_memory(status).unwrap(), expected);
        assert!(parse_memory("Name:\tx\n").is_err());
        assert!(memory(std::process::id()).unwrap().peak > 0);
    }
}
