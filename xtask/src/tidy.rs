//! The checks of `cargo xtask tidy`, one function each.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Crates in the order of the data path: a crate may depend only on those before it, and roles on no role.
const ORDER: &[&str] = &[
    "sextant-model",
    "sextant-proto",
    "sextant-security",
    "sextant-storage",
    "sextant-replication",
    "sextant-agent",
    "sextant-distributor",
    "sextant-ingester",
    "sextant-compactor",
    "sextant-promql",
    "sextant-promql-eval",
    "sextant-querier",
    "sextant",
];
const ROLES: &[&str] =
    &["sextant-agent", "sextant-distributor", "sextant-ingester", "sextant-compactor", "sextant-querier"];
const MAY_NAME_DATAFUSION: &[&str] = &["sextant-querier", "sextant"];
/// Modules that may turn `unsafe_code = "deny"` off; each says why at its top.
const MAY_BE_UNSAFE: &[&str] = &["agent/src/host/adjtimex.rs"];
const LINES_MAX: usize = 1000;

/// Runs every check and reports all findings at once.
pub fn run(root: &Path) -> Result<()> {
    let mut findings = Vec::new();
    let files = tracked_files(root)?;
    dependency_arrows(root, &files, &mut findings)?;
    module_docs_and_sizes(root, &files, &mut findings)?;
    folder_table(root, &files, &mut findings)?;
    for f in &findings {
        eprintln!("tidy: {f}");
    }
    if findings.is_empty() {
        println!("tidy: {} files are in order", files.len());
        return Ok(());
    }
    bail!("{} findings", findings.len())
}

fn tracked_files(root: &Path) -> Result<Vec<PathBuf>> {
    let out = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git ls-files")?;
    Ok(String::from_utf8(out.stdout)?.lines().map(PathBuf::from).filter(|p| root.join(p).exists()).collect())
}

fn dependency_arrows(root: &Path, files: &[PathBuf], findings: &mut Vec<String>) -> Result<()> {
    for manifest in files.iter().filter(|f| f.ends_with("Cargo.toml")) {
        let text = std::fs::read_to_string(root.join(manifest))?;
        let Some(name) =
            text.lines().find_map(|l| l.strip_prefix("name = \"")).map(|n| n.trim_end_matches('"'))
        else {
            continue;
        };
        let dependencies =
            text.split("[dependencies]").nth(1).unwrap_or("").split("\n[").next().unwrap_or("");
        let depends_on: Vec<&str> = dependencies
            .lines()
            .filter_map(|l| l.split(['.', ' ', '=']).next())
            .filter(|l| !l.is_empty())
            .collect();
        let rank = |n: &str| ORDER.iter().position(|o| *o == n);
        for d in &depends_on {
            if let (Some(own), Some(other)) = (rank(name), rank(d))
                && other >= own
            {
                findings.push(format!(
                    "{}: {name} may not depend on {d}: arrows point up the data path only",
                    manifest.display()
                ));
            }
            if ROLES.contains(&name) && ROLES.contains(d) {
                findings.push(format!("{}: role {name} imports role {d}", manifest.display()));
            }
            if d.starts_with("datafusion") && !MAY_NAME_DATAFUSION.contains(&name) {
                findings.push(format!("{}: only querier/ names DataFusion", manifest.display()));
            }
        }
    }
    Ok(())
}

fn module_docs_and_sizes(root: &Path, files: &[PathBuf], findings: &mut Vec<String>) -> Result<()> {
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        let text = std::fs::read_to_string(root.join(file))?;
        if !text.lines().any(|l| l.starts_with("//!")) {
            findings.push(format!("{}: the module does not open with `//!`", file.display()));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!("{}: {lines} lines; what would it be as two files?", file.display()));
        }
        let allows_unsafe = text.lines().any(|l| {
            let line = l.trim_start();
            line.starts_with('#')
                && line.contains("unsafe_code")
                && !line.contains("deny")
                && !line.contains("forbid")
        });
        if allows_unsafe && !MAY_BE_UNSAFE.iter().any(|m| file == Path::new(m)) {
            findings.push(format!(
                "{}: only {} may have unsafe code",
                file.display(),
                MAY_BE_UNSAFE.join(", ")
            ));
        }
        if file.file_name().is_some_and(|n| n == "mod.rs") {
            findings.push(format!("{}: `foo.rs` beside `foo/`, not `mod.rs`", file.display()));
        }
    }
    Ok(())
}

fn folder_table(root: &Path, files: &[PathBuf], findings: &mut Vec<String>) -> Result<()> {
    let readme = std::fs::read_to_string(root.join("README.md"))?;
    let mut folders: Vec<String> = files
        .iter()
        .filter(|f| f.components().count() > 1)
        .filter_map(|f| f.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()))
        .filter(|f| !f.starts_with('.'))
        .collect();
    folders.sort();
    folders.dedup();
    for f in folders.iter().filter(|f| !readme.contains(&format!("({f})"))) {
        findings.push(format!("README.md: the folder table does not name {f}/"));
    }
    Ok(())
}
