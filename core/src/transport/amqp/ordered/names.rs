//! Names of the queues that an ordered subscription has beside its own, and which of them an event goes to.

use sha2::{Digest as _, Sha256};

/// What is put behind the subscription's name.
const JOURNAL: &str = "-order";
const KEY: &str = "-key-";
const PARTITION: &str = "-p";
/// Bytes of the hash that names a key's queue.
const HASH_BYTES: usize = 16;

/// The journal: who owns the subscription, and which keys wait. The exchange that knows the number of partitions is
/// called so too.
pub(in super::super) fn journal(name: &str) -> String {
    format!("{name}{JOURNAL}")
}

/// The queue of one of a subscription's partitions.
pub(super) fn partition(name: &str, index: u64) -> String {
    format!("{name}{PARTITION}{index}")
}

/// The queue that every process with partitions consumes from. Nothing is ever in it: its consumers are counted, which a
/// quorum queue with a single active one does not do.
pub(in super::super) fn processes(name: &str) -> String {
    format!("{name}{PARTITION}{JOURNAL}")
}

/// The partition that a key belongs to. For ever: another one would break its order.
pub(super) fn partition_of(key: &str, partitions: u16) -> u64 {
    let digest = Sha256::digest(key);
    let first = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    first % u64::from(partitions.max(1))
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
        assert_eq!(partition("billing", 7), "billing-p7");
        assert_eq!(processes("billing"), "billing-p-order");
        assert_eq!(key_queue("billing", "abc"), "billing-key-ba7816bf8f01cfea414140de5dae2223");
    }

    #[test]
    fn keys_stay_in_their_partitions() {
        let of = |key| [1, 2, 8, 64].map(|partitions| partition_of(key, partitions));
        assert_eq!(of("abc"), [0, 0, 2, 42]);
        assert_eq!(of(""), [0, 0, 4, 20]);
    }

    #[test]
    fn keys_are_spread_evenly() {
        let mut count = [0; 8];
        for key in 0..8000 {
            count[usize::try_from(partition_of(&format!("key-{key}"), 8)).unwrap()] += 1;
        }
        assert!(count.iter().all(|count| (850..1150).contains(count)), "{count:?}");
    }
}
