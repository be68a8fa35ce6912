//! [`Scenario`]: one thing that every transport does, and what it takes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::Subject;
use super::world::World;
use crate::BoxError;
use crate::transport::{Capabilities, Ordered};

/// How a scenario ends.
pub(super) type Done = Result<(), BoxError>;
pub(super) type Play = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What a scenario needs beyond what every transport does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Order per key.
    Ordered,
    /// A second process.
    Processes,
    /// A consumer that can be crashed, in whatever way.
    Crash,
    /// Receipts that say whether an event was wanted.
    Routing,
    /// Delays.
    Delay,
}

impl Need {
    /// The capability, if it is missing.
    fn missing(self, subject: &dyn Subject, capabilities: &Capabilities) -> Option<&'static str> {
        let child = subject.child().is_some();
        let (there, name) = match self {
            Self::Ordered => (capabilities.ordered != Ordered::No, "ordered"),
            Self::Processes => (capabilities.multi_process && child, "multi_process"),
            // A broker of this process says itself how its consumers crash; the scenario fails if it cannot.
            Self::Crash => (child || !capabilities.multi_process, "a child to kill"),
            Self::Routing => (capabilities.reports_routing, "reports_routing"),
            Self::Delay => (!capabilities.max_delay.is_zero(), "max_delay"),
        };
        (!there).then_some(name)
    }
}

/// One thing that every transport does, unless its capabilities say otherwise.
#[derive(Clone, Copy)]
pub struct Scenario {
    name: &'static str,
    needs: &'static [Need],
    play: fn(Arc<World>) -> Play,
}

impl Scenario {
    pub(super) const fn new(name: &'static str, needs: &'static [Need], play: fn(Arc<World>) -> Play) -> Self {
        Self { name, needs, play }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn missing(&self, subject: &dyn Subject, capabilities: &Capabilities) -> Option<&'static str> {
        self.needs.iter().find_map(|need| need.missing(subject, capabilities))
    }

    pub(super) fn play(self, world: Arc<World>) -> Play {
        (self.play)(world)
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario").field("name", &self.name).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// All scenarios, in the order in which they are played.
pub fn scenarios() -> Vec<Scenario> {
    super::scenarios::all()
}
