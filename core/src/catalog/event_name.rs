//! [`EventName`]: `broker:topic`.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// Longest name of an event, in bytes: it travels in a header.
const MAX_NAME: usize = 512;

/// The name of an event as callers write it: everything before the first colon is the broker's tag, everything after
/// it the topic's.
///
/// ```
/// use tidings::catalog::EventName;
///
/// let name: EventName = "orders:new:eu".parse()?;
/// assert_eq!((name.broker(), name.topic()), ("orders", "new:eu"));
/// assert_eq!("orders".parse::<EventName>().unwrap_err().code(), "INVALID_EVENT_NAME");
/// # Ok::<(), tidings::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventName {
    text: String,
    colon: usize,
}

impl EventName {
    /// The broker's tag.
    pub fn broker(&self) -> &str {
        &self.text[..self.colon]
    }

    /// The topic's tag.
    pub fn topic(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    /// Both, as they were written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for EventName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |message: &str| {
            Error::new(ErrorKind::InvalidEventName, message)
                .field("event", text)
                .remedy("write brokerTag:topicTag, for example orders:new-orders")
        };
        let Some(colon) = text.find(':') else { return Err(refuse("the event's name has no colon")) };
        let (broker, topic) = (&text[..colon], &text[colon + 1..]);
        if broker.is_empty() {
            return Err(refuse("the event's name has no broker before the colon"));
        }
        if topic.is_empty() {
            return Err(refuse("the event's name has no topic after the colon"));
        }
        if text.len() > MAX_NAME {
            return Err(refuse(&format!("the event's name is longer than {MAX_NAME} bytes")));
        }
        if [broker, topic].into_iter().any(|part| part.trim() != part) || text.chars().any(char::is_control) {
            return Err(refuse("the event's name has white space at an end of a tag, or a control character"));
        }
        Ok(Self { text: text.to_owned(), colon })
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
