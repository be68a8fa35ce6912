//! [`Finding`]: one thing that was looked at, and how it is.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Could not be looked at; the remedy says what is needed for it.
    Unchecked,
    /// Something can go wrong.
    Warning,
    /// Something goes wrong.
    Problem,
}

impl Level {
    /// Its name in output: `ok`, `note`, `unchecked`, `warning`, `problem`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Unchecked => "unchecked",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        /// What is looked at. Stable: names are only ever added (`tests/vectors/doctor.json`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Check { $($(#[$doc])* $name,)* }

        impl Check {
            /// Every check there is, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in output.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

checks! {
    /// The broker can be reached with this URL.
    Broker = "broker";
    /// Passwords and events are not readable on their way or on disk.
    Security = "security";
    /// The user may declare, bind, publish and consume.
    Permissions = "permissions";
    /// Queues have the arguments that events are safe with.
    QueueArguments = "queue-arguments";
    /// No policy expires, drops or rejects events.
    Policies = "policies";
    /// No policy makes the broker give up on events earlier than Tidings does.
    DeliveryLimit = "delivery-limit";
    /// A delayed event arrives when it is due.
    Delays = "delays";
    /// No delayed event came due for a subscription that is gone.
    Orphans = "orphans";
    /// Somebody consumes what waits.
    Consumers = "consumers";
    /// Events that were given up on and wait for a decision.
    DeadLetters = "dead-letters";
    /// The clocks of this host and of the broker agree.
    Clock = "clock";
    /// The tables have a version that this build knows.
    Schema = "schema";
    /// A relay publishes what transactions have written.
    Outbox = "outbox";
    /// Every quorum queue has a leader.
    Leaders = "leaders";
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How bad it is.
    pub level: Level,
    /// The queue, subscription, file or broker that it is about.
    pub subject: String,
    /// What was found, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    /// A finding of this level.
    pub fn new(check: Check, level: Level, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { check, level, subject: subject.into(), message: message.into(), remedy: None }
    }

    /// All is well.
    pub fn ok(check: Check, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, subject, message)
    }

    /// What an error says, with its remedy.
    pub fn error(check: Check, subject: impl Into<String>, error: &crate::Error) -> Self {
        let message = format!("{}: {}", error.code(), error.message());
        Self { remedy: error.remedy_text().map(str::to_owned), ..Self::new(check, Level::Problem, subject, message) }
    }

    /// Says what to do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}
