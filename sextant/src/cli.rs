//! The command line: one flag per configuration key, the roles, and a few words that print and end.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use crate::{
    config::{Config, ConfigError, KEYS, Kind, reference_markdown},
    metrics_reference,
    operate::{self, Operation},
    role::Role,
};

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a role, or all of them, with this configuration.
    Run(Role, Box<Config>),
    /// A role that has no process of its own yet.
    NotYet(String),
    /// Ask a process of a running cluster, or tell it something.
    Operate(Operation),
    /// Read a password from the standard input and print its hash.
    HashPassword,
    /// Print this text and end.
    Print(String),
}

/// Why the command line is refused.
#[derive(Debug)]
pub enum CliError {
    /// clap's own error, help and version included.
    Usage(clap::Error),
    /// A key or a value is wrong.
    Config(ConfigError),
}

const HASH_PASSWORD: &str = "hash-password";

const ROLES: &[(&str, &str)] = &[
    ("all", "Run every role in one process (the default)"),
    ("agent", "Collect this host's metrics and scrape targets"),
    ("distributor", "Take writes, apply limits, route to shards"),
    ("ingester", "Hold recent data, replicate it, flush blocks"),
    ("compactor", "Merge blocks, apply retention"),
    ("querier", "Answer queries"),
    ("ruler", "Evaluate recording and alerting rules"),
];

/// The version with the commit where the build knew it.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn command() -> Command {
    let mut command = Command::new("sextant")
        .version(version())
        .about("Metrics, logs, traces, profiles, resource state and events of Kubernetes clusters: one system, one binary")
        .long_about(
            "Metrics, logs, traces, profiles, resource state and events of Kubernetes clusters: one system, one binary.\n\n\
             Without arguments every role runs in one process on the folder ./sextant-data, and this host's metrics are collected.\n\
             Every flag is also a key of the YAML file (--config) and an environment variable: --ingester.flush-age is\n\
             ingester.flush_age in the file and SEXTANT_INGESTER_FLUSH_AGE in the environment. A flag wins over the environment, \
             that over the file.",
        )
        .arg(Arg::new("config").long("config").global(true).value_name("FILE").help("YAML file with settings").env("SEXTANT_CONFIG"))
        .arg(
            Arg::new("print-config")
                .long("print-config")
                .global(true)
                .action(ArgAction::SetTrue)
                .help("Print the effective settings, secrets hidden, and end"),
        );
    for key in KEYS {
        let heading = match key.path.split_once('.') {
            Some((role, _)) => format!("{role} settings"),
            None => "General settings".to_owned(),
        };
        let default =
            if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
        let mut arg = Arg::new(key.path)
            .long(key.flag())
            .global(true)
            .help(format!("{}{default}", key.doc))
            .help_heading(heading);
        arg = if key.kind == Kind::Bool {
            arg.num_args(0..=1).default_missing_value("true").require_equals(true).value_name("BOOL")
        } else {
            let name = match key.kind {
                Kind::Listen => "ADDRESS",
                Kind::Duration => "DURATION",
                Kind::Bytes => "BYTES",
                Kind::Integer => "N",
                _ => "TEXT",
            };
            arg.value_name(name)
        };
        command = command.arg(arg);
    }
    for (name, about) in ROLES {
        let role = Command::new(*name).about(*about);
        command = command.subcommand(if *name == "ingester" { operate::of_ingesters(role) } else { role });
    }
    command = command.subcommand(operate::status_command());
    let reference = |name, about| Command::new(name).about(about).hide(true);
    command
        .subcommand(
            Command::new(HASH_PASSWORD)
                .about("Read a password from the standard input and print its `password_hash` for auth.file"),
        )
        .subcommand(reference("config-reference", "Print the configuration reference as Markdown"))
        .subcommand(reference(
            "metrics-reference",
            "Print the reference of Sextant's own metrics as Markdown",
        ))
}

/// Reads the command line; `env` looks environment variables up.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Invocation, CliError> {
    let matches = command().try_get_matches_from(args).map_err(CliError::Usage)?;
    let (role, inner) = matches.subcommand().map_or((None, &matches), |(name, m)| (Some(name), m));
    if role == Some("config-reference") {
        return Ok(Invocation::Print(reference_markdown()));
    }
    if role == Some("metrics-reference") {
        return Ok(Invocation::Print(metrics_reference::reference_markdown()));
    }
    if role == Some(HASH_PASSWORD) {
        return Ok(Invocation::HashPassword);
    }
    if let Some(operation) = role.and_then(|name| operate::operation(name, inner)) {
        return Ok(Invocation::Operate(operation));
    }
    let flags: Vec<(String, String)> =
        KEYS.iter().filter_map(|k| inner.get_one::<String>(k.path).map(|v| (k.flag(), v.clone()))).collect();
    let file = inner.get_one::<String>("config");
    let config = Config::load(file.map(String::as_str), &flags, env).map_err(CliError::Config)?;
    if inner.get_flag("print-config") {
        return Ok(Invocation::Print(config.to_yaml()));
    }
    match role.map_or(Some(Role::All), Role::parse) {
        Some(role) => Ok(Invocation::Run(role, Box::new(config))),
        None => Ok(Invocation::NotYet(role.unwrap_or_default().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Invocation, CliError> {
        parse(line.split_whitespace().map(OsString::from), |_| None)
    }

    #[test]
    fn roles_and_flags_parse() {
        let Ok(Invocation::Run(Role::All, c)) =
            parse_line("sextant --http.listen 127.0.0.1:0 --multi-tenancy")
        else {
            panic!()
        };
        assert_eq!(c.text("http.listen"), "127.0.0.1:0");
        assert!(c.flag("multi_tenancy"));
        let Ok(Invocation::Run(Role::All, c)) =
            parse_line("sextant all --multi-tenancy=false --ingester.flush-age=1h")
        else {
            panic!()
        };
        assert!(!c.flag("multi_tenancy"));
        for role in ["distributor", "ingester", "compactor", "querier"] {
            let Ok(Invocation::Run(r, _)) = parse_line(&format!("sextant {role} --data-dir x")) else {
                panic!("{role}")
            };
            assert_eq!(r.name(), role);
        }
        for role in ["agent", "ruler"] {
            let Ok(Invocation::NotYet(r)) = parse_line(&format!("sextant {role}")) else { panic!("{role}") };
            assert_eq!(r, role);
        }
        let line = "sextant ingester drain a --url http://127.0.0.1:1";
        let Ok(Invocation::Operate(Operation::Member { name, change, .. })) = parse_line(line) else {
            panic!()
        };
        assert_eq!((name.as_str(), change), ("a", "drain"));
        assert!(matches!(
            parse_line("sextant status --json"),
            Ok(Invocation::Operate(Operation::Status { json: true, .. }))
        ));
        assert!(matches!(parse_line("sextant --htp.listen x"), Err(CliError::Usage(_))));
        assert!(matches!(parse_line("sextant --http.listen x"), Err(CliError::Config(_))));
        assert!(matches!(parse_line("sextant banana"), Err(CliError::Usage(_))));
    }

    #[test]
    fn every_role_and_key_is_in_the_help() {
        let help = command().render_long_help().to_string();
        for key in KEYS {
            assert!(help.contains(&format!("--{}", key.flag())), "{}", key.path);
        }
    }
}
