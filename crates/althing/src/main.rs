//! The one binary of the Althing network.

// First, for its macros.
#[macro_use]
mod output;

mod bench;
mod bench_calls;
mod calls;
mod cli;
mod commands;
mod content;
mod dev;
mod economics;
mod economy_cli;
mod governing;
mod home;
mod local;
mod market;
mod near;
mod packages;
mod programs;
mod roles;
mod shares;
mod shipped;
mod staking;
mod submit;
mod units;
mod upstreams;

use clap::Parser as _;
use std::process::ExitCode;

/// What people see without `--verbose`. The consensus libraries warn about every new database, and call it
/// an error when one of their parts outlives another at the end. What is wrong with a certificate is in the error anyway.
const QUIET: &str = "warn,commonware_storage=error,commonware_consensus=error,commonware_p2p=error,commonware_resolver=off,\
     rustls_platform_verifier=off";

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let default = if cli.verbose { "info,althing=debug" } else { QUIET };
    let filter = tracing_subscriber::EnvFilter::try_from_env("ALTHING_LOG").unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::chain(&error));
            ExitCode::FAILURE
        }
    }
}
