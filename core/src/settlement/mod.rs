//! What happens to a delivery once its handler is done: the one place where that is decided.
//!
//! ```text
//!  delivered ─► handler ─┬─ Ok ──────────────────────────────────────────► acked
//!                        ├─ Retry(after) ── attempt < max_retries ? ─yes──► scheduled ─► delivered (attempt + 1)
//!                        │                                         └─no───► dead letter (or discarded, if so declared)
//!                        ├─ Fail ── a retry policy covers it ? ─────yes───► scheduled …
//!                        │                                    └─no────────► dead letter (or discarded)
//!                        ├─ DeadLetter(reason) ───────────────────────────► dead letter, at once
//!                        ├─ Discard ──────────────────────────────────────► acked, counted
//!                        └─ Release ──────────────────────────────────────► back to the queue, no attempt spent
//! ```

mod decision;
mod outcome;
mod policy;
mod raised;

use std::time::Duration;

use crate::event::MAX_HEADERS;

pub use decision::{attempt, decide, is_suspect, replayed, triage};
pub(crate) use decision::{put_back, time};
pub use outcome::{Effect, Failure, Outcome};
pub use policy::{Redact, SettlementPolicy};
pub use raised::{Raised, asked};

/// Most of an error's message that a dead letter keeps, in bytes.
pub const MAX_ERROR_TEXT: usize = 2 * 1024;
/// Most of an error's stack that a dead letter keeps, in bytes.
pub const MAX_STACK_TEXT: usize = 8 * 1024;
/// Most that the headers of a dead letter take, in bytes: its own texts come on top of what the event brought.
const MAX_DEAD_HEADERS: usize = MAX_HEADERS + 16 * 1024;
/// Delay of a `Retry` that names none, where no policy has one either (`domain-event-broker`'s default).
pub const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(10);
/// Times that a suspect may come back without an outcome before it is a dead letter.
pub const MAX_SUSPECT_RETURNS: u32 = 3;

/// Reasons of dead letters that Tidings gives itself (`tests/vectors/reasons.json`). Handlers may give any other text.
pub mod reason {
    /// The handler failed and no retry policy covered the error.
    pub const ERROR: &str = "error";
    /// The handler failed or asked for a retry once more than `max_retries`.
    pub const MAX_RETRIES: &str = "max-retries";
    /// The policy's `max_age` had passed.
    pub const MAX_AGE: &str = "max-age";
    /// The handler ran into its time-out.
    pub const TIMEOUT: &str = "timeout";
    /// The handler panicked.
    pub const PANIC: &str = "panic";
    /// The event ended its consumers again and again.
    pub const CRASHED: &str = "crashed";
    /// The body is not an event.
    pub const UNDECODABLE: &str = "undecodable";
    /// The `content-type` has no codec here.
    pub const UNSUPPORTED_CONTENT_TYPE: &str = "unsupported-content-type";
    /// The broker dead-lettered it by itself and did not say why.
    pub const BROKER: &str = "broker";
    /// The data do not fit the schema that the handler's host was given.
    pub const INVALID_DATA: &str = "invalid-data";

    /// All of them, in the order of the table.
    pub const ALL: &[&str] = &[
        ERROR,
        MAX_RETRIES,
        MAX_AGE,
        TIMEOUT,
        PANIC,
        CRASHED,
        UNDECODABLE,
        UNSUPPORTED_CONTENT_TYPE,
        BROKER,
        INVALID_DATA,
    ];
}
