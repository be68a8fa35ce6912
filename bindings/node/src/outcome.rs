//! What a handler came to: said by JavaScript, understood by the engine.

use napi_derive::napi;
use tidings::settlement::{self, reason};
use tidings::{Error, ErrorKind, Failure, Outcome as Decided, Result};

use crate::convert::duration;
use crate::error::thrown;
use crate::subscriber::one_of;

/// What a handler came to.
#[napi(object)]
pub struct Outcome {
    /// `ok`, `retry`, `fail`, `timeout`, `dead-letter`, `discard` or `release`.
    pub kind: String,
    /// `retry`: milliseconds to wait; missing: the policy's.
    pub after_ms: Option<f64>,
    /// `dead-letter`: why.
    pub reason: Option<String>,
    /// What the error says.
    pub message: Option<String>,
    /// Where it happened.
    pub stack: Option<String>,
    /// `fail`: types of the error, most specific first.
    pub error_types: Option<Vec<String>>,
}

/// One of the errors that a handler ended with.
#[napi(object)]
pub struct Raised {
    /// `retry`, `dead-letter`, `discard`, `store-failed` or `other`.
    pub kind: String,
    /// `retry`: milliseconds to wait; missing: the policy's.
    pub after_ms: Option<f64>,
    /// `dead-letter`: why.
    pub reason: Option<String>,
    /// `retry`, `dead-letter`: details.
    pub message: Option<String>,
}

/// What these errors ask for, the one that was thrown first, then its causes. `null`: the handler has failed.
#[napi]
pub fn asked(errors: Vec<Raised>) -> napi::Result<Option<Outcome>> {
    let errors: Result<Vec<_>> = errors.into_iter().map(raised).collect();
    let asked = errors.and_then(|errors| settlement::asked(errors).map(said).transpose());
    asked.map_err(|error| thrown(&error))
}

fn raised(error: Raised) -> Result<settlement::Raised> {
    let Raised { kind, after_ms, reason, message } = error;
    Ok(match kind.as_str() {
        "retry" => settlement::Raised::Retry { after: after_ms.map(|ms| duration("after", ms)).transpose()?, message },
        "dead-letter" => settlement::Raised::DeadLetter { reason: reason.unwrap_or_default(), message },
        "discard" => settlement::Raised::Discard,
        "store-failed" => settlement::Raised::StoreFailed,
        "other" => settlement::Raised::Other,
        other => return Err(one_of("kind", other, "retry, dead-letter, discard, store-failed or other")),
    })
}

fn said(decided: Decided) -> Result<Outcome> {
    let plain = |kind: &str| Outcome {
        kind: kind.to_owned(),
        after_ms: None,
        reason: None,
        message: None,
        stack: None,
        error_types: None,
    };
    Ok(match decided {
        Decided::Retry { after, message } => {
            let after_ms = after.map(|after| after.as_secs_f64() * 1000.0);
            Outcome { after_ms, message, ..plain("retry") }
        }
        Decided::DeadLetter { reason, message } => Outcome { reason: Some(reason), message, ..plain("dead-letter") },
        Decided::Discard => plain("discard"),
        Decided::Release => plain("release"),
        other => return Err(Error::new(ErrorKind::Internal, format!("no error asks for {other:?}"))),
    })
}

/// The outcome as the engine knows it.
pub(crate) fn decided(outcome: Outcome) -> Result<Decided> {
    let Outcome { kind, after_ms, reason: why, message, stack, error_types } = outcome;
    let failure = |reason, message: Option<String>| {
        let failure = Failure::new(error_types.unwrap_or_default(), message.unwrap_or_default()).with_reason(reason);
        Decided::Fail(match stack {
            Some(stack) => failure.with_stack(stack),
            None => failure,
        })
    };
    Ok(match kind.as_str() {
        "ok" => Decided::Ok,
        "retry" => Decided::Retry { after: after_ms.map(|ms| duration("after", ms)).transpose()?, message },
        "fail" => failure(reason::ERROR, message),
        "timeout" => failure(reason::TIMEOUT, message),
        "dead-letter" => Decided::DeadLetter { reason: why.unwrap_or_default(), message },
        "discard" => Decided::Discard,
        "release" => Decided::Release,
        other => return Err(one_of("kind", other, "ok, retry, fail, timeout, dead-letter, discard or release")),
    })
}
