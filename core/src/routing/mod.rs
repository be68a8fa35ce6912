//! Routing keys, binding keys and the trie that matches them (AMQP 0-9-1 §3.1.3.3, topic exchange).

mod binding_key;
mod names;
mod trie;

pub use binding_key::{check_binding_key, matches};
pub use names::{check_exchange_name, check_peer_name, check_subscription_name};
pub use trie::Trie;

use crate::{Error, ErrorKind, Result};

/// Longest routing or binding key, in bytes (an AMQP short string).
pub const MAX_KEY: usize = 255;

/// Accepts a routing key: 1 to 255 bytes, words of any characters but `.`, no `*` and no `#`.
pub fn check_routing_key(key: &str) -> Result<()> {
    let (message, remedy) = if key.is_empty() {
        ("the routing key is empty".to_owned(), "name what happened, such as user.registered")
    } else if key.len() > MAX_KEY {
        (
            format!("the routing key has {} bytes, at most {MAX_KEY} can be sent", key.len()),
            "move details into the data",
        )
    } else if key.contains(['*', '#']) {
        ("the routing key has a wildcard".to_owned(), "wildcards belong into binding keys; publish with a concrete key")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidRoutingKey, message).field("routing_key", key).remedy(remedy))
}
