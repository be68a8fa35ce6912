//! The handle by which a test makes the broker fail.

use std::sync::Arc;
use std::time::Duration;

use super::broker::Broker;
use super::script::{Chances, Fault, Operation, When};
use super::sources::Down;
use crate::ErrorKind;

/// Makes a memory broker fail on purpose.
///
/// Faults hit in the order in which they were scripted, whichever transport of the broker calls. What is lost to a
/// crash or a cut comes back with one lost delivery more, and its old tokens settle as `STALE_DELIVERY`.
///
/// ```
/// # use tidings::{ErrorKind, transport::memory::{MemoryTransport, Operation, When}};
/// let transport = MemoryTransport::new();
/// // The next two publishes are stored, but their confirms never come.
/// transport.faults().fail(Operation::Publish, 2, ErrorKind::ConnectionFailed, When::After);
/// ```
#[derive(Debug, Clone)]
pub struct Faults {
    broker: Arc<Broker>,
}

impl Faults {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    /// The next `times` operations of this kind fail.
    pub fn fail(&self, operation: Operation, times: usize, kind: ErrorKind, when: When) {
        if times > 0 {
            self.broker.script.lock().faults.push((operation, times, Fault { kind, when }));
        }
    }

    /// Every operation of this kind takes this long from now on, until set to zero.
    pub fn delay(&self, operation: Operation, by: Duration) {
        self.broker.script.lock().delays.insert(operation, by);
    }

    /// From now on things go wrong at random.
    pub fn random(&self, chances: Chances) {
        self.broker.script.lock().randomize(chances);
    }

    /// Forgets everything scripted, the random mode included. Does not bring back what is cut.
    pub fn clear(&self) {
        *self.broker.script.lock() = super::script::Script::default();
    }

    /// Crashes every source, for good. How many there were.
    pub fn crash_all(&self) -> usize {
        self.disconnect(None, None)
    }

    /// Crashes the sources of one subscription, for good. How many there were.
    pub fn crash(&self, subscription: &str) -> usize {
        self.disconnect(Some(subscription), None)
    }

    /// Cuts the connection of every source until [`restore`](Self::restore); the broker does not answer a ping either.
    pub fn cut_all(&self) -> usize {
        self.broker.with(|state, _| state.unreachable = true);
        self.disconnect(None, Some(Down::UntilRestored))
    }

    /// Cuts the connections of the sources of one subscription until [`restore`](Self::restore).
    pub fn cut(&self, subscription: &str) -> usize {
        self.disconnect(Some(subscription), Some(Down::UntilRestored))
    }

    /// Brings back every connection that was cut.
    pub fn restore(&self) {
        self.broker.with(|state, _| {
            state.unreachable = false;
            for source in state.sources.values_mut().flat_map(|sources| sources.values_mut()) {
                source.down = None;
                source.wake.notify_one();
            }
        });
    }

    fn disconnect(&self, subscription: Option<&str>, down: Option<Down>) -> usize {
        let why = if down.is_some() { "the connection was cut" } else { "the consumer crashed" };
        self.broker.with(|state, now| {
            let wanted = |name: &str| subscription.is_none_or(|subscription| subscription == name);
            let hit = state.source_ids(|source| wanted(&source.spec.name) && !source.crashed);
            for (name, id) in &hit {
                state.disconnect(name, *id, down, why, now);
            }
            hit.len()
        })
    }
}
