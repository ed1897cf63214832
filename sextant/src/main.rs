//! The one binary. `sextant` runs every role in one process; `sextant <role>` names one.

mod admin;
mod cli;
mod cluster;
mod config;
mod http;
mod listeners;
mod logging;
mod metrics_reference;
mod operate;
mod otlp;
mod overview;
mod readiness;
mod role;
mod security;
mod server;
mod shards;
mod targets;

use std::process::ExitCode;

use crate::cli::Invocation;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os(), |name| std::env::var(name).ok()) {
        Ok(invocation) => invocation,
        Err(cli::CliError::Usage(e)) => e.exit(),
        Err(cli::CliError::Config(e)) => {
            eprintln!("sextant: {e}");
            return ExitCode::from(2);
        }
    };
    match invocation {
        Invocation::Print(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Invocation::HashPassword => match security::password_hash_line(std::io::stdin().lock()) {
            Ok(line) => {
                println!("{line}");
                ExitCode::SUCCESS
            }
            Err(e) => {
                eprintln!("sextant: {e:#}");
                ExitCode::FAILURE
            }
        },
        Invocation::Operate(operation) => match operate::run(operation) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(e) => {
                eprintln!("sextant: {e:#}");
                ExitCode::FAILURE
            }
        },
        Invocation::NotYet(role) => {
            eprintln!(
                "sextant: the role `{role}` does not run as a process of its own yet; `sextant` without a role runs all of them in one process"
            );
            ExitCode::from(2)
        }
        Invocation::Run(role, config) => {
            if let Err(e) = logging::init(&config) {
                eprintln!("sextant: {e}");
                return ExitCode::from(2);
            }
            match server::run_blocking(role, *config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    eprintln!("sextant: {e:#}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
