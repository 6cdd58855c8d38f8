//! `bowline broker serve`: the broker of `bowline-broker`, out of the same binary.

use std::process::ExitCode;

use bowline_broker::config::ServeArgs;
use bowline_broker::exit::Failure;
use clap::Subcommand;

use super::output::Output;

#[derive(Subcommand, Debug)]
pub(super) enum BrokerVerb {
    /// Serve meshes from one data directory until SIGTERM or Ctrl-C.
    Serve(ServeArgs),
}

pub(super) fn run(verb: BrokerVerb, output: Output) -> Result<ExitCode, Failure> {
    let BrokerVerb::Serve(args) = verb;
    bowline_broker::serve_until_signalled(args, output.json)?;
    Ok(ExitCode::SUCCESS)
}
