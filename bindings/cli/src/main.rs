//! The `tidings` command. Everything is in the library, so that other packages can offer the same command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tidings_cli::main(std::env::args_os()))
}
