//! What the errors mean that a handler ended with, in whatever language it is written.

use std::time::Duration;

use super::{Outcome, reason};

/// Errors of a chain that are looked at: causes may be tied into a loop.
const MOST_CAUSES: usize = 16;

/// What one error is to its host, which knows it by its class.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Raised {
    /// The handler asks to get the event again.
    Retry {
        /// Time to wait; `None`: the policy's back-off, else 10 s.
        after: Option<Duration>,
        /// Why, kept with a dead letter if this was one retry too many.
        message: Option<String>,
    },
    /// The handler gives up on the event.
    DeadLetter {
        /// Why, in the handler's words.
        reason: String,
        /// Details.
        message: Option<String>,
    },
    /// The handler does not want the event.
    Discard,
    /// The data do not fit the schema that the host was given: they will not fit the next time either.
    InvalidData {
        /// What does not fit.
        message: String,
    },
    /// The database of an inbox failed, which is no fault of the event.
    StoreFailed,
    /// Any other error.
    Other,
}

/// What a handler's errors ask for: the one that it ended with, then its cause, then the cause of that. The first that asks
/// for anything counts. `None`: the handler has failed, and the host says how ([`Outcome::Fail`]).
///
/// ```
/// use tidings::Outcome;
/// use tidings::settlement::{Raised, asked};
///
/// let wrapped = [Raised::Other, Raised::Discard];
/// assert_eq!(asked(wrapped), Some(Outcome::Discard));
/// assert_eq!(asked([Raised::Other]), None);
/// ```
pub fn asked(errors: impl IntoIterator<Item = Raised>) -> Option<Outcome> {
    errors.into_iter().take(MOST_CAUSES).find_map(|error| match error {
        Raised::Retry { after, message } => Some(Outcome::Retry { after, message }),
        Raised::DeadLetter { reason, message } => Some(Outcome::DeadLetter { reason, message }),
        Raised::Discard => Some(Outcome::Discard),
        Raised::InvalidData { message } => {
            Some(Outcome::DeadLetter { reason: reason::INVALID_DATA.to_owned(), message: Some(message) })
        }
        Raised::StoreFailed => Some(Outcome::Release),
        Raised::Other => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_asks_for_anything_counts() {
        let dead = Raised::DeadLetter { reason: "no-tail-number".into(), message: None };
        let retry = Raised::Retry { after: Some(Duration::from_secs(5)), message: None };
        assert_eq!(
            asked([Raised::Other, dead, retry]),
            Some(Outcome::DeadLetter { reason: "no-tail-number".into(), message: None })
        );
        assert_eq!(asked([Raised::StoreFailed, Raised::Discard]), Some(Outcome::Release));
        assert_eq!(
            asked([Raised::InvalidData { message: "price: not a number".into() }]),
            Some(Outcome::DeadLetter { reason: "invalid-data".into(), message: Some("price: not a number".into()) })
        );
        assert_eq!(asked([]), None);
    }

    #[test]
    fn causes_that_go_in_circles_end() {
        assert_eq!(asked(std::iter::repeat(Raised::Other)), None);
    }
}
