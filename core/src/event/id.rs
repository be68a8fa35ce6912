//! Ids of events.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::SystemTime;

use fastrand::Rng;
use uuid::{Builder, Uuid};

use crate::host::{Process, is_forking_here};
use crate::{Error, ErrorKind, Result};

/// Longest id that is accepted from elsewhere, in bytes.
pub const MAX_ID: usize = 255;

/// Bits of a `UUIDv7` behind its time, 12 and 62 of them.
const TAIL_A: u32 = 12;
const TAIL_B: u32 = 62;

/// Makes ids without a system call for randomness each.
struct Maker {
    /// The process that `rng` was seeded in: a forked child must not go on with the same numbers.
    process: Process,
    rng: Rng,
    millis: u64,
    tail: u128,
}

impl Maker {
    fn new() -> Self {
        // 62 bits of it come from the system.
        let rng = Rng::with_seed(Uuid::now_v7().as_u64_pair().1);
        Self { process: Process::here(), rng, millis: 0, tail: 0 }
    }

    /// Within a millisecond, or while the clock goes back, the tail grows by a random step (RFC 9562, 6.2, method 2).
    fn next(&mut self, millis: u64) -> Uuid {
        if millis > self.millis {
            self.millis = millis;
            // Half of the range is left to grow into.
            self.tail = self.rng.u128(..1 << (TAIL_A + TAIL_B - 1));
        } else {
            self.tail += u128::from(self.rng.u32(..)) + 1;
        }
        let mut bytes = [0; 10];
        let tail = ((self.tail >> TAIL_B) << 64) | (self.tail & ((1 << TAIL_B) - 1));
        bytes.copy_from_slice(&tail.to_be_bytes()[6..]);
        Builder::from_unix_timestamp_millis(self.millis, &bytes).into_uuid()
    }
}

/// The maker of this process. The standard library's lock: it may be let go of in the child of a fork.
static MAKER: Mutex<Option<Maker>> = Mutex::new(None);
/// The process whose threads use the lock; 0 before the first.
static USERS: AtomicU32 = AtomicU32::new(0);

/// Nobody else uses the maker as long as this is held: the child of a fork finds it free.
pub(crate) struct HeldIds {
    _maker: MutexGuard<'static, Option<Maker>>,
}

impl HeldIds {
    pub(crate) fn hold() -> Option<Self> {
        Some(Self { _maker: maker()? })
    }
}

/// `None` where waiting for it would be for ever: this thread holds it for a fork, or it was held by a thread that a
/// fork has left behind.
fn maker() -> Option<MutexGuard<'static, Option<Maker>>> {
    let mut maker = match MAKER.try_lock() {
        Ok(maker) => maker,
        Err(TryLockError::Poisoned(maker)) => maker.into_inner(),
        Err(TryLockError::WouldBlock) => {
            if is_forking_here() || !Process::from_id(USERS.load(Relaxed)).is_here() {
                return None;
            }
            MAKER.lock().unwrap_or_else(PoisonError::into_inner)
        }
    };
    if maker.as_ref().is_none_or(|maker| !maker.process.is_here()) {
        *maker = Some(Maker::new());
        USERS.store(std::process::id(), Relaxed);
    }
    Some(maker)
}

/// A new `UUIDv7` (RFC 9562), greater than every id that this process made before.
pub fn new_id() -> Arc<str> {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let uuid = match maker() {
        Some(mut maker) => maker.get_or_insert_with(Maker::new).next(millis),
        None => Maker::new().next(millis),
    };
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
        let id = Uuid::parse_str(&ids[0]).unwrap();
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
    }

    #[test]
    fn ids_grow_while_the_clock_stands_or_goes_back() {
        let mut maker = Maker::new();
        maker.next(1_000);
        maker.tail = (1 << TAIL_B) - 1;
        let ids: Vec<_> = [1_000, 1_000, 900, 1_001, 5].into_iter().map(|millis| maker.next(millis)).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        let (seconds, nanos) = ids[2].get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos), (1, 0));
        assert_ne!(Maker::new().next(1_000), Maker::new().next(1_000));
    }
}
