//! Commands of an operator to a running cluster, over the HTTP API of any of its processes.

use std::{fmt::Write, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use sextant_cluster::status::ClusterStatus;

/// How long a process may take to answer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Where and how to ask.
#[derive(Debug, Clone)]
pub struct Target {
    url: String,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum Operation {
    /// `sextant status`.
    Status {
        /// Whom.
        target: Target,
        /// As JSON, whole.
        json: bool,
    },
    /// `sextant ingester drain|remove|activate NAME`.
    Member {
        /// Whom.
        target: Target,
        /// Which ingester.
        name: String,
        /// What to do: the last part of the path.
        change: &'static str,
    },
}

const CHANGES: [(&str, &str); 3] = [
    ("drain", "Have an ingester give its shards away; it leaves when it holds nothing"),
    ("remove", "Give an ingester up that is gone: its shards are replaced"),
    ("activate", "Let an ingester take shards again"),
];

fn with_target(command: Command) -> Command {
    command
        .arg(
            Arg::new("url")
                .long("url")
                .default_value("http://127.0.0.1:9009")
                .env("SEXTANT_URL")
                .help("HTTP listener of any process of the cluster"),
        )
        .arg(Arg::new("token-file").long("token-file").help("File with a bearer token"))
        .arg(Arg::new("ca-file").long("ca-file").help("Authority of the listener's certificate (PEM)"))
}

/// `sextant status`.
pub fn status_command() -> Command {
    with_target(Command::new("status").about("Show members, shards, leaders, lag, and what moves"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Everything, as JSON"))
}

/// The commands below the role `ingester`.
pub fn of_ingesters(mut role: Command) -> Command {
    for (name, about) in CHANGES {
        let command = with_target(Command::new(name).about(about));
        role = role.subcommand(command.arg(Arg::new("name").required(true).value_name("NAME")));
    }
    role
}

fn target(matches: &ArgMatches) -> Target {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    Target {
        url: text("url").unwrap_or_default(),
        token_file: text("token-file").map(PathBuf::from),
        ca_file: text("ca-file").map(PathBuf::from),
    }
}

/// The operation that a subcommand is; `None` where it runs a role.
pub fn operation(name: &str, matches: &ArgMatches) -> Option<Operation> {
    match name {
        "status" => Some(Operation::Status { target: target(matches), json: matches.get_flag("json") }),
        "ingester" => {
            let (change, matches) = matches.subcommand()?;
            let (change, _) = CHANGES.into_iter().find(|(name, _)| *name == change)?;
            let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
            Some(Operation::Member { target: target(matches), name, change })
        }
        _ => None,
    }
}

/// Carries it out; the text is for the standard output.
pub fn run(operation: Operation) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match operation {
            Operation::Status { target, json } => {
                let text = ask(&target, reqwest::Method::GET, "/api/v1/cluster/status").await?;
                let status: ClusterStatus = serde_json::from_str(&text).context("not a status")?;
                if json {
                    return Ok(format!("{}\n", serde_json::to_string_pretty(&status)?));
                }
                Ok(table(&status))
            }
            Operation::Member { target, name, change } => {
                let path = format!("/api/v1/admin/cluster/{change}?member={}", encoded(&name));
                ask(&target, reqwest::Method::POST, &path).await?;
                Ok(format!("{name}: {change}\n"))
            }
        }
    })
}

fn encoded(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    name.bytes().fold(String::new(), |mut out, b| {
        if plain(b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

async fn ask(target: &Target, method: reqwest::Method, path: &str) -> Result<String> {
    let mut client = reqwest::Client::builder().timeout(PATIENCE);
    if let Some(file) = &target.ca_file {
        let pem = std::fs::read(file).with_context(|| file.display().to_string())?;
        client = client.add_root_certificate(reqwest::Certificate::from_pem(&pem).context("ca-file")?);
    }
    let url = format!("{}{path}", target.url.trim_end_matches('/'));
    let mut request = client.build()?.request(method, &url);
    if let Some(file) = &target.token_file {
        let token = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        request = request.bearer_auth(token.trim());
    }
    let response = request.send().await.with_context(|| url.clone())?;
    let status = response.status();
    let text = response.text().await.with_context(|| url.clone())?;
    if !status.is_success() {
        bail!("{url}: {status}: {}", text.trim());
    }
    Ok(text)
}

/// The status for people.
fn table(s: &ClusterStatus) -> String {
    let mut out = String::new();
    let Some(cluster) = &s.cluster else { return "no ingester of the cluster answers\n".to_owned() };
    let _ = writeln!(out, "cluster {cluster}, replication {}, revision {}\n", s.replication, s.revision);
    let name_of = |node| {
        let found = s.members.iter().find(|m| m.node == node);
        found.map_or_else(|| format!("{node}"), |m| m.info.name.clone())
    };
    let mut rows =
        vec![["INGESTER", "STATE", "ZONE", "ADDRESS", "HOLDS", "LEADS", "ANSWERS"].map(str::to_owned)];
    for m in &s.members {
        let leads_metadata = if s.metadata_leader == Some(m.node) { "+metadata" } else { "" };
        rows.push([
            m.info.name.clone(),
            format!("{:?}", m.state).to_lowercase(),
            m.info.zone.clone(),
            m.info.address.clone(),
            m.holds.to_string(),
            format!("{}{leads_metadata}", m.leads),
            if m.reachable { "yes" } else { "no" }.to_owned(),
        ]);
    }
    push_rows(&rows, &mut out);
    let mut rows = vec![["SHARD", "LEADER", "REPLICAS", "LAG"].map(str::to_owned)];
    for shard in &s.shards {
        let lag = shard.lag.iter().map(|(node, n)| format!("{} {n}", name_of(*node)));
        rows.push([
            shard.shard.to_string(),
            shard.leader.map_or_else(|| "none".to_owned(), name_of),
            shard.replicas.iter().map(|n| name_of(*n)).collect::<Vec<_>>().join(" "),
            lag.collect::<Vec<_>>().join(", "),
        ]);
    }
    push_rows(&rows, &mut out);
    let mut rows = vec![["PROCESS", "ROLE", "HTTP"].map(str::to_owned)];
    for p in &s.processes {
        let http = p.addresses.get("http").cloned().unwrap_or_default();
        rows.push([p.name.clone(), p.role.clone(), http]);
    }
    push_rows(&rows, &mut out);
    for line in &s.moving {
        let _ = writeln!(out, "moving: {line}");
    }
    out
}

fn push_rows<const N: usize>(rows: &[[String; N]], out: &mut String) {
    if rows.len() < 2 {
        return;
    }
    let widths: [usize; N] =
        std::array::from_fn(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_parameter() {
        assert_eq!(encoded("host:9011"), "host%3A9011");
        assert_eq!(encoded("a/../b"), "a%2F..%2Fb");
    }
}
