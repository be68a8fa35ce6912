//! How a handling ended, and what that amounts to.

use std::borrow::Cow;
use std::time::Duration;

use super::reason;

/// How a handler failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Types of the error, most specific first. A policy's `retry_on` matches any of them.
    pub error_types: Vec<String>,
    /// What the error says.
    pub message: String,
    /// Where it happened.
    pub stack: Option<String>,
    /// [`reason::ERROR`], [`reason::TIMEOUT`] or [`reason::PANIC`]: why a dead letter is kept when no retry is due.
    pub reason: Cow<'static, str>,
}

impl Failure {
    /// A failure with the types of its error, most specific first, and what the error says.
    ///
    /// ```
    /// use tidings::{Failure, settlement::reason};
    ///
    /// let failure = Failure::new(["CardDeclined", "PaymentError"], "card 7 was declined").with_stack("at pay()");
    /// assert_eq!(failure.reason, reason::ERROR);
    /// ```
    pub fn new<T: Into<String>>(error_types: impl IntoIterator<Item = T>, message: impl Into<String>) -> Self {
        Self {
            error_types: error_types.into_iter().map(Into::into).collect(),
            message: message.into(),
            stack: None,
            reason: reason::ERROR.into(),
        }
    }

    /// Says where it happened.
    pub fn with_stack(mut self, stack: impl Into<String>) -> Self {
        self.stack = Some(stack.into());
        self
    }

    /// Says why a dead letter is kept when no retry is due.
    pub fn with_reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = reason.into();
        self
    }
}

/// What a host says of a delivery that it has handled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Handled.
    Ok,
    /// To be handled again after the given time, or when the policy says.
    Retry {
        /// Time to wait; `None`: the policy's back-off, else 10 s.
        after: Option<Duration>,
        /// Why, kept with a dead letter if this was one retry too many.
        message: Option<String>,
    },
    /// The handler failed.
    Fail(Failure),
    /// Given up on, whatever the policy says.
    DeadLetter {
        /// Why, in the handler's words.
        reason: String,
        /// Details.
        message: Option<String>,
    },
    /// Not wanted: acknowledged and counted apart.
    Discard,
    /// Not handled: back to the queue, no attempt spent.
    Release,
}

/// What a decision amounts to, for counters, logs and spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// Handled.
    Acked,
    /// Scheduled again.
    Retried,
    /// Kept as a dead letter.
    DeadLettered,
    /// Dropped on purpose.
    Discarded,
    /// Given back.
    Released,
}
