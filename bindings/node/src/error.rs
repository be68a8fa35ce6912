//! Errors on their way to JavaScript: one JSON text, of which `node/src/error.ts` makes the class of its code.

use std::error::Error as _;

use tidings::Error;

/// Everything that an error says, as JSON.
pub(crate) fn to_json(error: &Error) -> String {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        causes.push(next.to_string());
        cause = next.source();
    }
    serde_json::json!({
        "code": error.code(),
        "message": error.message(),
        "text": error.to_string(),
        "field": error.field_name(),
        "value": error.field_value(),
        "remedy": error.remedy_text(),
        "retryable": error.retryable(),
        "outcomeUnknown": error.outcome_unknown(),
        "causes": causes,
    })
    .to_string()
}

/// The same as an exception of a synchronous call.
pub(crate) fn thrown(error: &Error) -> napi::Error {
    napi::Error::new(napi::Status::GenericFailure, to_json(error))
}
