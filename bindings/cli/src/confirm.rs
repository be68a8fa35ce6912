//! Questions before something is destroyed, and answers from the terminal or a pipe.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

/// Asks whether to go on, unless `--yes` was given. Without a terminal to ask on, that is an error.
pub(crate) fn confirm(context: &Context, question: &str) -> Result<(), Failure> {
    if context.globals.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        let remedy = "add --yes if it is meant, or look first with --dry-run";
        return Err(Failure::own(Exit::NotConfirmed, format!("{question} There is no terminal to ask on"), remedy));
    }
    match ask(&format!("{question} [y/N] "))?.as_deref() {
        Some("y" | "Y" | "yes" | "Yes" | "YES") => Ok(()),
        _ => Err(Failure::own(Exit::NotConfirmed, "nothing was changed", "answer y, or give --yes")),
    }
}

/// Asks on stderr and reads one line of stdin; `None` at its end.
pub(crate) fn ask(question: &str) -> Result<Option<String>, Failure> {
    let mut stderr = io::stderr();
    let _nobody_listens = write!(stderr, "{question}").and_then(|()| stderr.flush());
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(line.trim().to_owned())),
        Err(e) => Err(Failure::system("the answer cannot be read", &e)),
    }
}
