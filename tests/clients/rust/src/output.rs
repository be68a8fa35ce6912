//! Writes lines to stdout, whole and at once. Where the rig does not read, the writer waits.

use std::io::Write as _;

use serde_json::{Value, json};
use tidings::Error;

/// Says what was done: `did`, the command's number and the fields of `rest`.
pub(crate) fn say(did: &str, n: u64, rest: Value) {
    let mut line = json!({ "did": did });
    if let (Some(line), Value::Object(rest)) = (line.as_object_mut(), rest) {
        if n > 0 {
            line.insert("n".into(), n.into());
        }
        line.extend(rest);
    }
    let mut text = line.to_string();
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        // Nobody listens any more: whatever is done now would be unsaid.
        std::process::exit(2);
    }
}

/// Says that a command failed.
pub(crate) fn say_error(did: &str, n: u64, code: &str, message: &str) {
    say(did, n, json!({"error": {"code": code, "message": message}}));
}

/// Says what came of a command.
pub(crate) fn answer(did: &str, n: u64, result: Result<Value, Error>) {
    match result {
        Ok(rest) => say(did, n, rest),
        Err(error) => say_error(did, n, error.code(), &error.to_string()),
    }
}
