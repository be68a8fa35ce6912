//! The `tidings` command.

use pyo3::prelude::*;

/// Runs one command line (the first argument is the program's name) and returns its exit code. Takes over SIGINT and
/// SIGTERM: the process is to end with the code.
#[pyfunction]
pub(crate) fn command(py: Python<'_>, arguments: Vec<String>) -> u8 {
    py.detach(|| tidings_cli::hosted(arguments))
}
