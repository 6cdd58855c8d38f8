//! The thin binary: `bowline broker serve` is the same.

use std::io::Write;
use std::process::ExitCode;

use bowline_broker::config::ServeArgs;
use bowline_broker::exit::{EXIT_CODES, Failure};
use bowline_broker::serve_until_signalled;
use clap::{Parser, Subcommand};

/// The broker of Bowline meshes.
#[derive(Parser)]
#[command(name = "bowline-broker", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve meshes from one data directory until SIGTERM or Ctrl-C.
    Serve(ServeArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Verb::Serve(args) = cli.verb;
    match serve_until_signalled(args, cli.json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure, cli.json);
            failure.exit.into()
        }
    }
}

/// Where nobody listens any more, the exit code remains.
fn tell(failure: &Failure, json: bool) {
    let told = if json {
        writeln!(std::io::stdout(), "{}", failure.to_json())
    } else {
        writeln!(std::io::stderr(), "bowline-broker: {failure}")
    };
    drop(told);
}
