//! Dead letters as a transport shows them.

use async_trait::async_trait;

use super::{Message, Token};
use crate::Result;

/// One dead letter: the event with its `tidings-dead-*` headers.
#[derive(Debug)]
#[non_exhaustive]
pub struct StoredDeadLetter {
    /// Names it when it is replayed or discarded.
    pub token: Token,
    /// The event, its original routing key, its headers.
    pub message: Message,
}

impl StoredDeadLetter {
    /// The dead letter that `token` names.
    pub fn new(token: Token, message: Message) -> Self {
        Self { token, message }
    }
}

/// A walk over the dead letters of one subscription, oldest first, up to those that were there when it was opened.
///
/// Looking changes nothing: what is neither replayed nor discarded stays in its place, counters included.
#[async_trait]
pub trait DeadLetters: Send {
    /// How many there were when the walk was opened.
    fn depth(&self) -> u64;

    /// The next ones, at most `max`; an empty vector at the end.
    async fn next(&mut self, max: usize) -> Result<Vec<StoredDeadLetter>>;

    /// Puts events back into the subscription with these messages' headers, confirms that, and only then removes the
    /// dead letters. One result each, in order.
    async fn replay(&mut self, batch: Vec<(Token, Message)>) -> Vec<Result<()>>;

    /// Removes dead letters. One result each, in order.
    async fn discard(&mut self, batch: Vec<Token>) -> Vec<Result<()>>;

    /// Ends the walk. What was not replayed or discarded is where it was.
    async fn close(self: Box<Self>) -> Result<()>;
}
