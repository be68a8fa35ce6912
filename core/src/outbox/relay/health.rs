//! [`RelayHealth`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// What a relay is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayHealth {
    /// It has an entry in the store and publishes.
    pub working: bool,
    /// Parts of the keys that it has, of 256.
    pub parts: usize,
    /// Age of the oldest row that should have been published, as it was seen last.
    pub oldest: Option<Duration>,
    /// Why it is not working, or what went wrong last.
    pub last_error: Option<String>,
}

/// Where the tasks of a relay note how they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes(Arc<Mutex<RelayHealth>>);

impl Notes {
    pub(super) fn read(&self) -> RelayHealth {
        self.0.lock().clone()
    }

    pub(super) fn working(&self, parts: usize) {
        let mut health = self.0.lock();
        (health.working, health.parts) = (true, parts);
    }

    pub(super) fn resting(&self) {
        let mut health = self.0.lock();
        (health.working, health.parts) = (false, 0);
    }

    pub(super) fn failed(&self, error: &crate::Error) {
        self.0.lock().last_error = Some(error.to_string());
    }
}
