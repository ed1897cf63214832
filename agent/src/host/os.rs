//! The distribution, from `os-release`.

use super::collector::{CollectError, Collector, Gather, HostPaths, read};

const HELP: &str = "A metric with a constant '1' value labeled by build_id, id, id_like, image_id, image_version, \
                    name, pretty_name, variant, variant_id, version, version_codename, version_id.";
const LABELS: [&str; 12] = [
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
];

/// The collector `os`.
pub struct Os;

impl Collector for Os {
    fn name(&self) -> &'static str {
        "os"
    }

    fn collect(&mut self, paths: &HostPaths, out: &mut Gather) -> Result<(), CollectError> {
        let text = read(&paths.rootfs.join("etc/os-release"))
            .or_else(|_| read(&paths.rootfs.join("usr/lib/os-release")))?;
        let value = |label: &str| {
            let key = label.to_ascii_uppercase();
            let found = text.lines().find_map(|l| l.strip_prefix(&key)?.strip_prefix('='));
            unquote(found.unwrap_or_default())
        };
        let values = LABELS.map(value);
        let labels: Vec<(&'static str, &str)> =
            LABELS.into_iter().zip(values.iter().map(String::as_str)).collect();
        out.gauge("node_os_info", HELP, &labels, 1.0);

        let version_id = value("version_id");
        if let Some(version) = major_minor(&version_id) {
            let labels = [("id", &*value("id")), ("id_like", &*value("id_like")), ("name", &*value("name"))];
            let help = "Metric containing the major.minor part of the OS version.";
            out.gauge("node_os_version", help, &labels, version);
        }
        Ok(())
    }
}

/// The leading `digits[.digits]` of a version.
fn major_minor(version: &str) -> Option<f64> {
    let end = version
        .char_indices()
        .scan(0, |dots, (i, c)| {
            *dots += usize::from(c == '.');
            (c.is_ascii_digit() || (c == '.' && *dots == 1 && i > 0)).then_some(i + 1)
        })
        .last()?;
    version[..end].parse().ok()
}

/// Values are quoted as in a shell.
fn unquote(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote)) {
            return inner.replace("\\\"", "\"").replace("\\$", "$").replace("\\\\", "\\");
        }
    }
    value.to_owned()
}
