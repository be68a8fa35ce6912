//! Ids of events.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use uuid::{ContextV7, Timestamp, Uuid};

use crate::{Error, ErrorKind, Result};

/// Longest id that is accepted from elsewhere, in bytes.
pub const MAX_ID: usize = 255;

/// A new `UUIDv7` (RFC 9562), greater than every id that this process made before.
pub fn new_id() -> Arc<str> {
    static CONTEXT: Mutex<Option<ContextV7>> = Mutex::new(None);
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut context = CONTEXT.lock();
    let context = context.get_or_insert_with(ContextV7::new);
    let uuid = Uuid::new_v7(Timestamp::from_unix(&*context, elapsed.as_secs(), elapsed.subsec_nanos()));
    let mut buffer = Uuid::encode_buffer();
    Arc::from(&*uuid.hyphenated().encode_lower(&mut buffer))
}

/// Accepts any non-empty id of up to [`MAX_ID`] bytes.
pub(crate) fn check_id(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > MAX_ID {
        return Err(Error::new(ErrorKind::InvalidEvent, format!("the event's id has {} bytes", id.len()))
            .field("uuid_string", id)
            .remedy(format!("use 1 to {MAX_ID} bytes, or leave it out to get a UUIDv7")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow() {
        let ids: Vec<_> = (0..10_000).map(|_| new_id()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
