//! The binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bowline_daemon::cli::main()
}
