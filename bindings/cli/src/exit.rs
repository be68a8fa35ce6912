//! Exit codes: our own, and those of the commands that `subscribe --exec` runs.

use tidings::{Error, ErrorKind};

macro_rules! exits {
    ($(#[$about:meta])* $type:ident { $($(#[$doc:meta])* $name:ident = $code:literal, $label:literal;)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type { $($(#[$doc])* $name,)* }

        impl $type {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code.
            pub const fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

exits! {
    /// How the command ended. Stable: codes are only ever added (`tests/vectors/exit-codes.json`).
    Exit {
        /// Done.
        Ok = 0, "ok";
        /// The broker, the store or the system refused or failed.
        Failed = 1, "failed";
        /// The arguments make no sense.
        Usage = 2, "usage";
        /// The broker or store cannot be reached, or refuses the login.
        Unreachable = 3, "unreachable";
        /// There is no subscription or dead letter of this name.
        NotFound = 4, "not-found";
        /// It is not known whether the event was stored: publishing it again may publish it twice.
        OutcomeUnknown = 5, "outcome-unknown";
        /// Something would be destroyed and nobody said yes.
        NotConfirmed = 6, "not-confirmed";
        /// `doctor` found a problem.
        Findings = 7, "findings";
        /// Some of many were done, others failed.
        Partly = 8, "partly";
        /// `subscribe --limit` ran into its `--timeout`.
        LimitNotReached = 9, "limit-not-reached";
        /// Ended by a second signal, or with events given back unfinished.
        Interrupted = 130, "interrupted";
    }
}

exits! {
    /// What the exit code of a command under `subscribe --exec` does with its event. Any other code, and death by a signal, is a
    /// failure: retried as `--max-retries` says, then a dead letter.
    HandlerExit {
        /// Handled.
        Ack = 0, "ack";
        /// A dead letter at once (`EX_DATAERR`), reason `rejected`.
        DeadLetter = 65, "dead-letter";
        /// Again later (`EX_TEMPFAIL`), at most `--max-retries` times, then a dead letter.
        Retry = 75, "retry";
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        if error.outcome_unknown() {
            return Self::OutcomeUnknown;
        }
        match error.kind() {
            ErrorKind::ConnectionFailed | ErrorKind::AccessRefused | ErrorKind::TlsFailed => Self::Unreachable,
            ErrorKind::SubscriptionNotFound => Self::NotFound,
            kind if kind.code().starts_with("INVALID_") => Self::Usage,
            ErrorKind::UnsupportedTransport => Self::Usage,
            _ => Self::Failed,
        }
    }
}
