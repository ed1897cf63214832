//! Open files of the whole host, from `/proc/sys/fs/file-nr`.

use super::collector::{CollectError, Collector, Gather, HostPaths, field, number, read};

/// The collector `filefd`.
pub struct FileFd;

impl Collector for FileFd {
    fn name(&self) -> &'static str {
        "filefd"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let path = paths.proc.join("sys/fs/file-nr");
        let text = read(&path)?;
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        for (name, help, i) in [
            ("node_filefd_allocated", "File descriptor statistics: allocated.", 0),
            ("node_filefd_maximum", "File descriptor statistics: maximum.", 2),
        ] {
            out.gauge(name, help, &[], number(&path, field(&path, &fields, i)?)?);
        }
        Ok(())
    }
}
