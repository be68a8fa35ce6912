//! [`MemoryInbox`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{DomainEvent, Error, ErrorKind, Result};

/// Keys that one inbox remembers at most, so that it does not grow without end.
const MAX_KEYS: usize = 1_000_000;

/// Remembers what was processed, for a time, in this process. For handlers without a database.
///
/// An event is claimed for a lease under a token that nobody else has; the claim is renewed, completed on success and
/// released on failure. A process that ends forgets everything, so effects are repeated after a crash: what must not be
/// repeated needs a database.
///
/// ```
/// use std::time::Duration;
/// use tidings::inbox::MemoryInbox;
/// use tidings::DomainEvent;
///
/// let inbox = MemoryInbox::new(Duration::from_secs(3600), Duration::from_secs(30));
/// let event = DomainEvent::new("order.placed", &7)?;
/// let claim = inbox.claim("billing", &event)?.expect("nobody has processed it");
/// assert!(inbox.claim("billing", &event).is_err(), "somebody is at it");
/// claim.complete();
/// assert!(inbox.claim("billing", &event)?.is_none(), "it was processed");
/// # Ok::<(), tidings::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MemoryInbox {
    shared: Arc<Shared>,
}

type Key = (Box<str>, Box<str>, Box<str>);

#[derive(Debug)]
struct Shared {
    keep: Duration,
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Entry>,
    next: u64,
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The token of who is at it; 0: it was processed.
    token: u64,
    until: Instant,
}

/// An event that is ours to process. Dropped without [`complete`](Self::complete), it is released.
#[derive(Debug)]
#[must_use = "a claim that is dropped is released"]
pub struct Claim {
    shared: Arc<Shared>,
    key: Key,
    token: u64,
}

impl MemoryInbox {
    /// Remembers what was processed for `keep`; a claim that is not renewed ends after `lease`.
    pub fn new(keep: Duration, lease: Duration) -> Self {
        Self { shared: Arc::new(Shared { keep, lease, state: Mutex::default() }) }
    }

    /// Claims `event` for `subscription`; `None` if it was processed. Tenant and subscription are part of the key.
    ///
    /// Errors: `STORE_BUSY` while somebody else has it (try again later), `STORE_FULL` if a million keys are remembered.
    pub fn claim(&self, subscription: &str, event: &DomainEvent) -> Result<Option<Claim>> {
        let key: Key = (event.tenant().unwrap_or_default().into(), subscription.into(), event.idempotency_key().into());
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        state.sweep(now, self.shared.lease);
        match state.entries.get(&key) {
            Some(entry) if entry.until > now && entry.token == 0 => return Ok(None),
            Some(entry) if entry.until > now => {
                return Err(Error::new(ErrorKind::StoreBusy, "the event is being processed by somebody else")
                    .field("id", event.id())
                    .remedy("try again: it is either completed or released soon"));
            }
            None if state.entries.len() >= MAX_KEYS => {
                return Err(Error::new(ErrorKind::StoreFull, "the inbox remembers as many events as it can")
                    .field("keys", MAX_KEYS)
                    .remedy("remember for a shorter time, or use a database"));
            }
            _ => {}
        }
        state.next += 1;
        let token = state.next;
        state.entries.insert(key.clone(), Entry { token, until: now + self.shared.lease });
        Ok(Some(Claim { shared: self.shared.clone(), key, token }))
    }
}

impl State {
    /// Forgets what is over, now and then.
    fn sweep(&mut self, now: Instant, every: Duration) {
        if self.swept.is_none_or(|swept| now - swept >= every) || self.entries.len() >= MAX_KEYS {
            self.entries.retain(|_, entry| entry.until > now);
            self.swept = Some(now);
        }
    }

    fn ours(&mut self, key: &Key, token: u64) -> Option<&mut Entry> {
        self.entries.get_mut(key).filter(|entry| entry.token == token)
    }
}

impl Claim {
    /// Prolongs the lease. `false` if it had ended and somebody else has the event.
    pub fn renew(&self) -> bool {
        let until = Instant::now() + self.shared.lease;
        self.shared.state.lock().ours(&self.key, self.token).map(|entry| entry.until = until).is_some()
    }

    /// Remembers that the event was processed. `false` if somebody else had taken it over meanwhile.
    pub fn complete(self) -> bool {
        let until = Instant::now() + self.shared.keep;
        let mut state = self.shared.state.lock();
        state.ours(&self.key, self.token).map(|entry| *entry = Entry { token: 0, until }).is_some()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        // A completed one has another token.
        if state.ours(&self.key, self.token).is_some() {
            state.entries.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> DomainEvent {
        DomainEvent::new("a.b", &1).unwrap().with_id(id).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_released_renewed_and_taken_over() {
        let inbox = MemoryInbox::new(Duration::from_secs(60), Duration::from_secs(10));
        drop(inbox.claim("s", &event("1")).unwrap());
        let first = inbox.claim("s", &event("1")).unwrap().expect("a failure releases");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(first.renew());
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(inbox.claim("s", &event("1")).unwrap_err().code(), "STORE_BUSY");
        tokio::time::advance(Duration::from_secs(2)).await;
        let second = inbox.claim("s", &event("1")).unwrap().expect("the lease is over");
        assert!(!first.renew() && !first.complete(), "it is not the first's any more");
        assert!(second.complete());
        assert!(inbox.claim("s", &event("1")).unwrap().is_none());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(inbox.claim("s", &event("1")).unwrap().is_some(), "forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn tenant_and_subscription_are_part_of_the_key() {
        let inbox = MemoryInbox::new(Duration::from_secs(60), Duration::from_secs(10));
        assert!(inbox.claim("s", &event("1")).unwrap().unwrap().complete());
        assert!(inbox.claim("t", &event("1")).unwrap().is_some());
        assert!(inbox.claim("s", &event("1").with_tenant("x")).unwrap().is_some());
        assert!(inbox.claim("s", &event("2").with_idempotency_key("1")).unwrap().is_none());
    }
}
