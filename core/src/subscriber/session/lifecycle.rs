//! Pausing, draining, closing, and what is seen of all that from outside.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::{Alone, Item, Phase, Session, State, Waiting};
use crate::Result;
use crate::metrics::{Gauged, Gauges};
use crate::subscriber::SubscriptionHealth;

impl Session {
    /// Gives back what has waited for a handler longer than `max_hold`: the broker's own patience is limited.
    pub(in crate::subscriber) fn release_held(&self) {
        let Some(before) = Instant::now().checked_sub(self.spec.max_hold) else { return };
        let mut state = self.state.lock();
        // Oldest first, so everything before the first young one is old.
        let old = state.ready.iter().take_while(|waiting| waiting.is_older(before)).count();
        let old: Vec<_> = state.ready.drain(..old).collect();
        let mut held = state.with_those_behind(old);
        held.extend(state.keys.held_since(before));
        let items: Vec<_> = held.into_iter().map(Waiting::release).collect();
        drop(state);
        self.settler.push(items);
    }

    pub(in crate::subscriber) async fn pause(&self) -> Result<()> {
        let back = {
            let mut state = self.state.lock();
            state.paused = true;
            self.take_back(&mut state)
        };
        self.settler.push(back);
        self.source.set_flow(false).await
    }

    pub(in crate::subscriber) async fn resume(&self) -> Result<()> {
        let alone = {
            let mut state = self.state.lock();
            state.paused = false;
            state.alone != Alone::No
        };
        if !alone {
            self.source.set_flow(true).await?;
        }
        self.room.notify_one();
        self.ready.notify_one();
        Ok(())
    }

    /// Starts nothing new and gives back what nobody has in hand.
    pub(in crate::subscriber) fn begin_drain(&self) {
        let back = {
            let mut state = self.state.lock();
            if state.phase != Phase::Open {
                return;
            }
            state.phase = Phase::Draining;
            self.take_back(&mut state)
        };
        self.settler.push(back);
        self.room.notify_one();
        self.ready.notify_waiters();
        self.ready.notify_one();
    }

    /// Waits until no host has a delivery in hand.
    pub(in crate::subscriber) async fn until_idle(&self) {
        let idle = self.idle.notified();
        tokio::pin!(idle);
        loop {
            idle.as_mut().enable();
            if self.state.lock().handed == 0 {
                return;
            }
            idle.as_mut().await;
            idle.set(self.idle.notified());
        }
    }

    pub(in crate::subscriber) fn close(&self) {
        // A source that is closed may forget what it went through.
        self.health();
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        self.end_isolation(&mut state);
        drop(state);
        self.settler.wake();
    }

    pub(in crate::subscriber) fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// How many deliveries hosts have in hand.
    pub(in crate::subscriber) fn in_hand(&self) -> usize {
        self.state.lock().handed
    }

    pub(in crate::subscriber) fn is_paused(&self) -> bool {
        self.state.lock().paused
    }

    pub(in crate::subscriber) fn health(&self) -> SubscriptionHealth {
        if let Err(error) = self.home.check() {
            return SubscriptionHealth::unknown(&self.spec.name, &error);
        }
        let source = self.source.health();
        let recoveries = self.recoveries.fetch_max(source.recoveries, Relaxed).max(source.recoveries);
        let state = self.state.lock();
        let waiting = state.waiting();
        let limited_by = if state.alone == Alone::No {
            let full = state.outstanding >= usize::from(self.spec.prefetch);
            source.limited_by.or(full.then_some("prefetch"))
        } else {
            Some("suspect")
        };
        let consuming = source.consuming && !state.ended && state.phase == Phase::Open && !state.paused;
        SubscriptionHealth {
            subscription: self.spec.name.clone(),
            connected: source.connected,
            consuming,
            paused: state.paused,
            draining: state.phase == Phase::Draining,
            in_flight: state.handed,
            buffered: waiting + source.held,
            recoveries,
            last_error: state.failure.as_ref().map(ToString::to_string).or(source.last_error),
            limited_by,
            order: source.order,
        }
    }

    /// Everything that nobody has in hand, to be released.
    pub(super) fn take_back(&self, state: &mut State) -> Vec<Item> {
        if state.alone != Alone::Running {
            self.end_isolation(state);
        }
        state.waiting_ones().into_iter().map(Waiting::release).collect()
    }
}

impl Gauged for Session {
    fn gauges(&self) -> Gauges {
        let health = self.health();
        Gauges {
            in_flight: health.in_flight as u64,
            buffered: health.buffered as u64,
            consuming: health.consuming.into(),
            recoveries: health.recoveries,
            order: health.order,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.home.is_here() {
            // Its end would wait for threads that only the parent has.
            std::mem::forget(self.source.clone());
        }
        self.counters.recoveries.fetch_add(self.recoveries.load(Relaxed), Relaxed);
    }
}
