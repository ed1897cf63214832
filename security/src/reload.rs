//! Files that are read again when they change. What is wrong changes nothing: what was in force before stays.
//!
//! Contents are compared, not times of modification: a mounted Kubernetes secret changes through a symbolic link, and
//! a key may be replaced within the clock's resolution.

use std::{
    fmt::Display,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ring::digest;
use tokio::sync::watch;

use crate::metrics::{Part, SecurityMetrics};

/// Certificates, keys and credentials are far smaller; a larger file is a mistake and not read into memory.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The files that one load has read, with what they said.
#[derive(Default)]
pub(crate) struct Files(Vec<(PathBuf, Option<digest::Digest>)>);

impl Files {
    /// Reads a file and remembers what it said.
    pub(crate) fn read(&mut self, path: &Path) -> std::io::Result<Vec<u8>> {
        let read = read_bounded(path);
        let digest = read.as_ref().ok().map(|bytes| digest::digest(&digest::SHA256, bytes));
        self.0.push((path.to_owned(), digest));
        read
    }

    /// Whether every file still says what it said.
    fn is_unchanged(&self) -> bool {
        self.0.iter().all(|(path, before)| {
            let now = read_bounded(path).ok().map(|bytes| digest::digest(&digest::SHA256, &bytes));
            now.as_ref().map(AsRef::as_ref) == before.as_ref().map(AsRef::as_ref)
        })
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Something that is read from files.
pub trait Reload: Send + Sync {
    /// Looks at the files: true where they have changed and are now in force, false where they are as before. An error, once
    /// for each change, is why they were refused; what was in force stays.
    fn reload(&self) -> Result<bool, String>;
}

struct State {
    files: Files,
    last_error: Option<String>,
}

/// A value made from files.
pub(crate) struct Reloading<T> {
    part: Part,
    metrics: Arc<SecurityMetrics>,
    load: Box<dyn Fn(&mut Files) -> Result<T, String> + Send + Sync>,
    current: ArcSwap<T>,
    state: Mutex<State>,
}

impl<T: Send + Sync> Reloading<T> {
    /// Reads the files; at the start what is wrong is an error.
    pub(crate) fn open<E: Display>(
        part: Part,
        metrics: Arc<SecurityMetrics>,
        load: impl Fn(&mut Files) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let mut files = Files::default();
        let first = load(&mut files)?;
        metrics.loaded(part, now_s());
        Ok(Self {
            part,
            metrics,
            load: Box::new(move |files| load(files).map_err(|e| e.to_string())),
            current: ArcSwap::from_pointee(first),
            state: Mutex::new(State { files, last_error: None }),
        })
    }

    /// What is in force.
    pub(crate) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Why the files as they are now were refused.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.state.lock().last_error.clone()
    }
}

impl<T: Send + Sync> Reload for Reloading<T> {
    fn reload(&self) -> Result<bool, String> {
        let mut state = self.state.lock();
        if state.files.is_unchanged() {
            return Ok(false);
        }
        let part = self.part.as_str();
        let mut files = Files::default();
        let loaded = (self.load)(&mut files);
        state.files = files;
        match loaded {
            Ok(value) => {
                self.current.store(Arc::new(value));
                state.last_error = None;
                self.metrics.loaded(self.part, now_s());
                tracing::info!(part, "changed files are in force");
                Ok(true)
            }
            Err(error) => {
                state.last_error = Some(error.clone());
                self.metrics.refused(self.part);
                tracing::error!(part, %error, "changed files are wrong; those before stay in force");
                Err(error)
            }
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Looks at files again and again.
pub struct Watcher {
    every: Duration,
    parts: Vec<Arc<dyn Reload>>,
}

impl Watcher {
    /// Looks every so often.
    pub fn new(every: Duration) -> Self {
        Self { every, parts: Vec::new() }
    }

    /// Looks at this too.
    #[must_use]
    pub fn with(mut self, part: Arc<dyn Reload>) -> Self {
        self.parts.push(part);
        self
    }

    /// Runs until `stop` becomes true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let parts = Arc::new(self.parts);
        loop {
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                () = tokio::time::sleep(self.every) => {}
            }
            let parts = parts.clone();
            // Errors are logged, counted and kept where they are found.
            let looked = tokio::task::spawn_blocking(move || parts.iter().for_each(|p| _ = p.reload())).await;
            if let Err(error) = looked {
                tracing::error!(%error, "looking at certificates and credentials failed");
            }
        }
    }
}
