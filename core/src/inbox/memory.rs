//! [`MemoryInbox`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Rest;
use crate::{DomainEvent, Error, ErrorKind, Result};

/// Keys that one inbox remembers at most, so that it does not grow without end.
const MAX_KEYS: usize = 1_000_000;

/// Remembers what was processed, for a time, in this process. For handlers without a database.
///
/// An event is claimed for a lease under a token that nobody else has; the claim is renewed, completed on success and
/// released on failure. A process that ends forgets everything, so effects are repeated after a crash: what must not be
/// repeated needs a database. [`handle_once`](crate::SubscriptionBuilder::handle_once) runs handlers with it.
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
    rest: Rest,
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
    /// What renews it.
    keeper: Option<AbortHandle>,
}

/// What a handler's place does with an event.
#[derive(Debug)]
#[non_exhaustive]
pub enum Turn {
    /// It is new: handle it, then complete the claim. A claim that is dropped is released.
    Run(Claim),
    /// It was processed: acknowledge it without doing anything.
    Skip,
    /// Somebody else is at it, or the inbox is full: wait so long, then give it back. No attempt is spent.
    Rest(Duration),
}

impl MemoryInbox {
    /// Remembers what was processed for `keep`; a claim that is not renewed ends after `lease`.
    pub fn new(keep: Duration, lease: Duration) -> Self {
        Self { shared: Arc::new(Shared { keep, lease, state: Mutex::default(), rest: Rest::default() }) }
    }

    /// For whoever runs handlers: what to do with `event`. The claim of [`Turn::Run`] is renewed until it is completed or
    /// dropped, however long the handler takes. Inside a Tokio runtime.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use std::time::Duration;
    /// use tidings::DomainEvent;
    /// use tidings::inbox::{MemoryInbox, Turn};
    ///
    /// let inbox = MemoryInbox::new(Duration::from_secs(3600), Duration::from_secs(30));
    /// let event = DomainEvent::new("order.placed", &7)?;
    /// let Turn::Run(claim) = inbox.turn("billing", &event) else { panic!() };
    /// assert!(matches!(inbox.turn("billing", &event), Turn::Rest(_)));
    /// claim.complete();
    /// assert!(matches!(inbox.turn("billing", &event), Turn::Skip));
    /// # Ok::<(), tidings::Error>(()) })?; Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn turn(&self, subscription: &str, event: &DomainEvent) -> Turn {
        match self.claim(subscription, event) {
            Ok(Some(claim)) => {
                self.shared.rest.worked();
                Turn::Run(claim.kept())
            }
            Ok(None) => Turn::Skip,
            Err(error) => {
                let pause = self.shared.rest.failed();
                tracing::warn!(subscription, id = event.id(), %error, ?pause, "the event is given back");
                Turn::Rest(pause)
            }
        }
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
        Ok(Some(Claim { shared: self.shared.clone(), key, token, keeper: None }))
    }
}

impl Shared {
    fn renew(&self, key: &Key, token: u64) -> bool {
        let until = Instant::now() + self.lease;
        self.state.lock().ours(key, token).map(|entry| entry.until = until).is_some()
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
        self.shared.renew(&self.key, self.token)
    }

    /// Renews it three times in a lease until it is completed, dropped or lost.
    fn kept(mut self) -> Self {
        let (shared, key, token) = (self.shared.clone(), self.key.clone(), self.token);
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(shared.lease / 3).await;
                if !shared.renew(&key, token) {
                    return;
                }
            }
        });
        self.keeper = Some(renewing.abort_handle());
        self
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
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
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
    async fn a_turn_is_kept_for_as_long_as_it_takes() {
        let inbox = MemoryInbox::new(Duration::from_secs(60), Duration::from_secs(10));
        let Turn::Run(claim) = inbox.turn("s", &event("1")) else { panic!("it is new") };
        for _ in 0..20 {
            // The keeper has its turn whenever time passes.
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(matches!(inbox.turn("s", &event("1")), Turn::Rest(_)), "somebody is at it");
        }
        assert!(claim.complete());
        assert!(matches!(inbox.turn("s", &event("1")), Turn::Skip));
        drop(inbox.turn("s", &event("2")));
        assert!(matches!(inbox.turn("s", &event("2")), Turn::Run(_)), "a failure releases");
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
