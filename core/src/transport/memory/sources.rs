//! The sources of a broker as it sees them: connected, cut, crashed, stopped.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::broker::State;
use crate::transport::{Incoming, Settlement, SourceHealth, SubscriptionSpec, Token};
use crate::{Error, ErrorKind, Result};

/// What the broker knows of one source.
#[derive(Debug)]
pub(super) struct SourceState {
    pub(super) spec: SubscriptionSpec,
    /// The transport handle that opened it.
    pub(super) handle: u64,
    /// Its connection; a new one after every recovery.
    pub(super) generation: u64,
    pub(super) wake: Arc<Notify>,
    pub(super) flow: bool,
    pub(super) stopped: bool,
    pub(super) crashed: bool,
    pub(super) down: Option<Down>,
    pub(super) recoveries: u64,
    pub(super) last_error: Option<String>,
}

/// How long a cut lasts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Down {
    UntilRestored,
    Until(Instant),
}

impl SourceState {
    /// Whether it takes events, or will once its connection is back.
    pub(super) fn is_live(&self) -> bool {
        !self.stopped && !self.crashed
    }

    /// Whether a cut is in force.
    fn is_down(&self, now: Instant) -> bool {
        match self.down {
            None => false,
            Some(Down::UntilRestored) => true,
            Some(Down::Until(at)) => at > now,
        }
    }
}

/// What a `next` finds.
pub(super) enum Step {
    Done(Result<Vec<Incoming>>),
    /// Look again when woken, or at this time.
    Wait(Option<Instant>),
}

impl State {
    /// What there is for a source.
    pub(super) fn poll(&mut self, name: &Arc<str>, id: u64, max: usize, now: Instant) -> Step {
        let Some(source) = self.sources.get_mut(name).and_then(|sources| sources.get_mut(&id)) else {
            return Step::Done(Ok(Vec::new()));
        };
        if source.crashed {
            let text = source.last_error.clone().unwrap_or_default();
            return Step::Done(Err(Error::new(ErrorKind::ConnectionFailed, text).remedy("subscribe again")));
        }
        if source.stopped {
            return Step::Done(Ok(Vec::new()));
        }
        if source.is_down(now) {
            return Step::Wait(if let Some(Down::Until(at)) = source.down { Some(at) } else { None });
        }
        source.down = None;
        if !source.flow {
            return Step::Wait(None);
        }
        let generation = source.generation;
        if !self.subscriptions.contains_key(name) {
            // Deleted under its consumer: declared again, as every transport does.
            let spec = source.spec.clone();
            if let Err(error) = self.declare(&spec) {
                return Step::Done(Err(error));
            }
        }
        let scheduled = self.scheduled_due();
        let Some(subscription) = self.subscriptions.get_mut(name) else { return Step::Wait(None) };
        subscription.advance(now);
        let taken = subscription.take(max.max(1), generation, now);
        if taken.is_empty() {
            Step::Wait(subscription.due().into_iter().chain(scheduled).min())
        } else {
            Step::Done(Ok(taken))
        }
    }

    /// Carries out one settlement of a source.
    pub(super) fn settle(
        &mut self,
        name: &Arc<str>,
        id: u64,
        token: Token,
        settlement: Settlement,
        now: Instant,
    ) -> Result<()> {
        let stale = super::settling::stale;
        if self.generation(name, id) != Some(token.generation) {
            return Err(stale());
        }
        let subscription = self.subscriptions.get_mut(name).ok_or_else(stale)?;
        let quiet = subscription.ordered.is_none() && matches!(settlement, Settlement::Ack);
        subscription.advance(now);
        subscription.settle(token, settlement, now)?;
        if !quiet {
            self.wake(name);
        }
        Ok(())
    }

    /// Ends a source's connection: what it holds comes back, lost. A cut one recovers, a crashed one does not.
    pub(super) fn disconnect(&mut self, name: &Arc<str>, id: u64, down: Option<Down>, why: &str, now: Instant) {
        let fresh = self.fresh_id();
        let Some(source) = self.sources.get_mut(name).and_then(|sources| sources.get_mut(&id)) else { return };
        let old = std::mem::replace(&mut source.generation, fresh);
        source.last_error = Some(why.to_owned());
        if !matches!(source.down, Some(Down::UntilRestored)) {
            source.down = down;
        }
        source.crashed |= down.is_none();
        source.recoveries += u64::from(down.is_some());
        if let Some(subscription) = self.subscriptions.get_mut(name) {
            subscription.release(old, true, now);
        }
        self.wake(name);
    }

    /// Lets go of a source. What it holds comes back, unchanged.
    pub(super) fn close_source(&mut self, name: &Arc<str>, id: u64, now: Instant) {
        let Some(sources) = self.sources.get_mut(name) else { return };
        let Some(source) = sources.remove(&id) else { return };
        if sources.is_empty() {
            self.sources.remove(name);
        }
        if let Some(subscription) = self.subscriptions.get_mut(name) {
            subscription.release(source.generation, false, now);
        }
        source.wake.notify_one();
        self.wake(name);
    }

    /// Whether a source is consuming.
    pub(super) fn health(&self, name: &Arc<str>, id: u64, now: Instant) -> SourceHealth {
        let Some(source) = self.sources.get(name).and_then(|sources| sources.get(&id)) else {
            return SourceHealth::default();
        };
        let connected = !source.crashed && !source.is_down(now);
        let order = self.subscriptions.get(name).and_then(|subscription| subscription.order(now));
        SourceHealth {
            order,
            connected,
            consuming: connected && source.flow && !source.stopped && self.subscriptions.contains_key(name),
            recoveries: source.recoveries,
            last_error: source.last_error.clone(),
            ..SourceHealth::default()
        }
    }

    /// The sources that pass.
    pub(super) fn source_ids(&self, passes: impl Fn(&SourceState) -> bool) -> Vec<(Arc<str>, u64)> {
        let all = self.sources.iter().flat_map(|(name, sources)| sources.iter().map(move |(id, it)| (name, id, it)));
        all.filter(|(.., source)| passes(source)).map(|(name, id, _)| (name.clone(), *id)).collect()
    }

    fn generation(&self, name: &Arc<str>, id: u64) -> Option<u64> {
        Some(self.sources.get(name)?.get(&id)?.generation)
    }
}
