//! Why a command did not succeed.

use std::fmt::Write as _;

use serde_json::json;
use tidings::Error;

use crate::exit::Exit;
use crate::redact;

/// Why a command did not succeed: what the engine says, or the command itself.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(Error),
    Own {
        exit: Exit,
        message: String,
        remedy: Option<String>,
    },
    /// Whoever read the output has had enough of it.
    BrokenPipe,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl Failure {
    /// A failure of the command itself, with what to do about it.
    pub(crate) fn own(exit: Exit, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Own { exit, message: message.into(), remedy: Some(remedy.into()) }
    }

    /// Arguments that make no sense.
    pub(crate) fn usage(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::own(Exit::Usage, message, remedy)
    }

    /// The system refused something.
    pub(crate) fn system(what: &str, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::Own { exit: Exit::Failed, message: format!("{what}: {error}"), remedy: None }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Engine(error) => Exit::from(error),
            Self::Own { exit, .. } => *exit,
            Self::BrokenPipe => Exit::Ok,
        }
    }

    /// Code, sentence, remedy, for people or (one line) for programs.
    pub(crate) fn text(&self, as_json: bool) -> String {
        if matches!(self, Self::BrokenPipe) {
            return String::new();
        }
        let text = if as_json { format!("{}\n", self.json()) } else { self.human() };
        redact::urls(&text)
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Engine(e) => json!({"error": {
                "code": e.code(), "message": e.message(), "field": e.field_name(), "value": e.field_value(),
                "remedy": e.remedy_text(), "retryable": e.retryable(), "outcome_unknown": e.outcome_unknown(),
            }}),
            Self::Own { exit, message, remedy } => {
                json!({"error": {"code": exit.name(), "message": message, "remedy": remedy}})
            }
            Self::BrokenPipe => serde_json::Value::Null,
        }
    }

    fn human(&self) -> String {
        let (code, message, remedy) = match self {
            Self::Engine(e) => (e.code(), e.message(), e.remedy_text()),
            Self::Own { exit, message, remedy } => (exit.name(), message.as_str(), remedy.as_deref()),
            Self::BrokenPipe => return String::new(),
        };
        let mut text = format!("error: {code}: {}\n", redact::visible(message));
        if let Self::Engine(e) = self {
            if let (Some(field), Some(value)) = (e.field_name(), e.field_value().filter(|value| !value.is_empty())) {
                let _infallible = writeln!(text, "  where:  {field} = {}", redact::visible(value));
            }
            if e.outcome_unknown() {
                text.push_str("  note:   it may have been stored all the same\n");
            }
        }
        if let Some(remedy) = remedy {
            let _infallible = writeln!(text, "  remedy: {}", redact::visible(remedy));
        }
        text
    }
}
