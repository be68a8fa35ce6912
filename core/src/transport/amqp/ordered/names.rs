//! Names of the queues that an ordered subscription has beside its own.

use sha2::{Digest as _, Sha256};

/// What is put behind the subscription's name.
const JOURNAL: &str = "-order";
const KEY: &str = "-key-";
/// Bytes of the hash that names a key's queue.
const HASH_BYTES: usize = 16;

/// The journal: who owns the subscription, and which keys wait.
pub(in super::super) fn journal(name: &str) -> String {
    format!("{name}{JOURNAL}")
}

/// The queue of a parked key. Hashed, because keys may be longer than a queue's name, and private.
pub(super) fn key_queue(name: &str, key: &str) -> String {
    use std::fmt::Write as _;
    let mut queue = format!("{name}{KEY}");
    for byte in &Sha256::digest(key)[..HASH_BYTES] {
        // Writing into a string cannot fail.
        let _infallible = write!(queue, "{byte:02x}");
    }
    queue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_what_they_are() {
        assert_eq!(journal("billing"), "billing-order");
        assert_eq!(key_queue("billing", "abc"), "billing-key-ba7816bf8f01cfea414140de5dae2223");
    }
}
