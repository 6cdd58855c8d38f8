//! `sim`: deterministic simulation of Bowline.
//!
//! Exit codes: 0 as it should be, 1 a violation was found (`canary`: was not found), 2 usage.

mod verb;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use sim::panics;

#[derive(Parser)]
#[command(about = "Deterministic simulation of Bowline: the shipped core under faults")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Is the simulator deterministic? The same plan twice here, and in another process
    Meta,
    /// Is a planted bug found? Exits 0 if it is
    Canary,
    /// Run many seeds; ends with one line of JSON
    Sweep(verb::sweep::Args),
    /// Run one seed, or a plan from a file, and show what happened
    Replay(verb::replay::Args),
    /// Take a failing plan apart, until nothing can be left out without losing the failure
    Shrink(verb::shrink::Args),
    /// Run seeds until one oracle finds something; one line of JSON says where
    Hunt(verb::hunt::Args),
    /// Change core for the worse, in many small ways, and see each change found
    Mutants(verb::mutants::Args),
    /// Write docs/GUARANTEES.md anew
    Guarantees,
    /// How fast is it?
    Bench(verb::bench::Args),
    /// Attack real processes: release binaries, sockets, kills, a full disk
    #[cfg(feature = "soak")]
    Soak(verb::soak::Args),
}

fn main() -> ExitCode {
    panics::keep_quiet();
    let done = match Cli::parse().verb {
        Verb::Meta => verb::meta::run(),
        Verb::Canary => Ok(verb::canary::run()),
        Verb::Sweep(args) => verb::sweep::run(&args),
        Verb::Replay(args) => verb::replay::run(&args),
        Verb::Shrink(args) => verb::shrink::run(&args),
        Verb::Hunt(args) => verb::hunt::run(&args),
        Verb::Mutants(args) => verb::mutants::run(&args),
        Verb::Guarantees => verb::guarantees::run(),
        Verb::Bench(args) => Ok(verb::bench::run(&args)),
        #[cfg(feature = "soak")]
        Verb::Soak(args) => verb::soak::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::from(2)
        }
    }
}
