//! The names of the system, from `uname`.

use super::collector::{CollectError, Collector, Gather, HostPaths};

/// The collector `uname`.
pub struct Uname;

impl Collector for Uname {
    fn name(&self) -> &'static str {
        "uname"
    }

    fn collect(&mut self, _: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let u = rustix::system::uname();
        let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
        let (sysname, release, version, machine, nodename) =
            (text(u.sysname()), text(u.release()), text(u.version()), text(u.machine()), text(u.nodename()));
        let domainname = text(u.domainname());
        let labels = [
            ("sysname", sysname.as_str()),
            ("release", &release),
            ("version", &version),
            ("machine", &machine),
            ("nodename", &nodename),
            ("domainname", &domainname),
        ];
        let help = "Labeled system information as provided by the uname system call.";
        out.gauge("node_uname_info", help, &labels, 1.0);
        Ok(())
    }
}
