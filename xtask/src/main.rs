//! Chores: `cargo xtask tidy` checks what a person forgets and never writes; `cargo xtask docs` writes generated documents;
//! `cargo xtask cluster` runs a whole cluster on this machine.

mod cluster;
mod http;
mod store_proxy;
mod tidy;

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};
use clap::Parser;

/// The project's chores.
#[derive(Parser)]
enum Task {
    /// Check dependency arrows, module docs, the README's folder table, file sizes and who may be unsafe. Writes nothing.
    Tidy,
    /// Write docs/configuration.md from the table of keys and docs/metrics.md from what the roles render.
    Docs,
    /// Start every role as its own process on this machine, keep them running, and end them with this one.
    Cluster(Box<cluster::Args>),
    /// The proxy in front of a cluster's object store, which misbehaves when told to.
    #[command(hide = true)]
    StoreProxy(store_proxy::Args),
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder")?;
    match Task::parse() {
        Task::Tidy => tidy::run(root),
        Task::Docs => docs(root),
        Task::Cluster(args) => cluster::run(&args),
        Task::StoreProxy(args) => store_proxy::run(&args),
    }
}

fn docs(root: &Path) -> Result<()> {
    for (word, file) in
        [("config-reference", "docs/configuration.md"), ("metrics-reference", "docs/metrics.md")]
    {
        let out = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--package", "sextant", "--", word])
            .current_dir(root)
            .output()?;
        if !out.status.success() {
            bail!("{}", String::from_utf8_lossy(&out.stderr));
        }
        std::fs::write(root.join(file), out.stdout).context(file)?;
    }
    Ok(())
}
