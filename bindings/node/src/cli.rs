//! The `tidings` command, for `npx tidings`.

use napi_derive::napi;

/// Runs one command line (the first argument is the program's name) and returns its exit code. Nothing else runs on this
/// thread meanwhile.
#[napi]
pub fn cli(args: Vec<String>) -> u32 {
    tidings_cli::main(args).into()
}
