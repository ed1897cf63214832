//! Asking filesystems for their sizes without waiting for one that does not answer.
//!
//! A network filesystem whose server is gone blocks `statvfs` for as long as it is gone. Each question has a thread of its
//! own; one that is late is left behind, and its mount point is not asked again until the thread comes back. So there is
//! at most one thread per mount point.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    thread,
    time::Duration,
};

/// As long as node_exporter waits.
const WAIT: Duration = Duration::from_secs(5);

/// Questions that have not been answered, by mount point.
pub struct MountStats<T> {
    wait: Duration,
    late: HashMap<PathBuf, Receiver<io::Result<T>>>,
}

impl<T> Default for MountStats<T> {
    fn default() -> Self {
        Self { wait: WAIT, late: HashMap::new() }
    }
}

impl<T: Send + 'static> MountStats<T> {
    /// Asks; an error of the kind `TimedOut` where there is no answer yet.
    pub fn ask(
        &mut self,
        at: &Path,
        read: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if let Some(answer) = self.late.get(at) {
            match answer.try_recv() {
                Err(TryRecvError::Empty) => return Err(io::ErrorKind::TimedOut.into()),
                // The old answer is worth nothing now; the mount point answers again.
                Ok(_) | Err(TryRecvError::Disconnected) => drop(self.late.remove(at)),
            }
        }
        let (sender, answer) = channel();
        let path = at.to_owned();
        thread::Builder::new().name("statvfs".into()).spawn(move || {
            // Nobody listens any more where the agent has ended.
            let _ = sender.send(read(&path));
        })?;
        match answer.recv_timeout(self.wait) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(mount_point = %at.display(), "a filesystem does not answer");
                self.late.insert(at.to_owned(), answer);
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::Other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_filesystem_is_left_behind_until_it_answers() {
        let mut stats = MountStats { wait: Duration::from_millis(20), late: HashMap::new() };
        let at = Path::new("/mnt");
        let (release, blocked) = channel::<()>();
        let late = stats.ask(at, move |_| Ok(blocked.recv().map_or(0, |()| 1)));
        assert_eq!(late.map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
        let not_asked = stats.ask(at, |_| -> io::Result<i32> { unreachable!("asked twice") });
        assert_eq!(not_asked.map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
        assert_eq!(stats.ask(Path::new("/"), |_| Ok(3)).ok(), Some(3));

        release.send(()).expect("the thread waits");
        let again = (0..100).find_map(|_| {
            thread::sleep(Duration::from_millis(10));
            stats.ask(at, |_| Ok(2)).ok()
        });
        assert_eq!(again, Some(2));
    }
}
