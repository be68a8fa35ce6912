//! Where results go: stdout, for people or as one JSON object per line.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::failure::Failure;

/// Stdout and stderr of one command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    quiet: bool,
    /// Stderr is a terminal: progress and questions make sense.
    pub(crate) interactive: bool,
    color: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = !plain && !json && io::stdout().is_terminal();
        Self { json, quiet, interactive: io::stderr().is_terminal(), color }
    }

    /// Prints text for people. A reader that is gone ends the command.
    #[allow(clippy::unused_self, reason = "all output goes through here")]
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|e| Failure::system("stdout cannot be written", &e))
    }

    /// Prints a line for people.
    pub(crate) fn line(self, line: impl AsRef<str>) -> Result<(), Failure> {
        self.text(&format!("{}\n", line.as_ref()))
    }

    /// Prints a value as one line of JSON.
    pub(crate) fn value(self, value: &impl Serialize) -> Result<(), Failure> {
        let json =
            serde_json::to_string(value).map_err(|e| Failure::system("the result cannot be written", &e.into()))?;
        self.line(json)
    }

    /// Says something beside the result, on stderr.
    pub(crate) fn note(self, note: impl AsRef<str>) {
        if !self.quiet && !self.json {
            // Notes are for whoever looks.
            let _nobody_listens = writeln!(io::stderr(), "{}", note.as_ref());
        }
    }

    /// Rewrites the last line of the terminal; nothing elsewhere. An empty text clears it.
    pub(crate) fn progress(self, text: &str) {
        if self.interactive && !self.quiet && !self.json {
            let _nobody_listens = write!(io::stderr(), "\r\u{1b}[K{text}").and_then(|()| io::stderr().flush());
        }
    }

    /// The text in bold, on a terminal.
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// The text in an ANSI colour, on a terminal.
    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Prints why the command did not succeed.
    pub(crate) fn failure(self, failure: &Failure) {
        self.progress("");
        let _nobody_listens = write!(io::stderr(), "{}", failure.text(self.json));
    }
}
