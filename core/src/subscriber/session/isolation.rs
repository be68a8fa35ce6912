//! A suspect runs alone: when it ends its process, no other event is in the process's hands and counts a crash that is
//! not its own.
//!
//! ```text
//! No ─► a suspect came ─► Closing ─► the source gives back ─► Clearing ─► all else is settled ─► Ready ─► Running ─► Over ─► No
//! ```

use std::sync::Arc;

use super::{Item, Phase, Session, State, Waiting};

/// How far a suspect is on its way to run alone.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    /// There is none.
    #[default]
    No,
    /// The source is told to fetch nothing and to give back what it has.
    Closing,
    /// What else was fetched is given back or finished.
    Clearing,
    /// It is the only event fetched, and waits for a host.
    Ready,
    /// A host has it in hand.
    Running,
    /// It is settled; the source is told to go on.
    Over,
}

impl Session {
    /// If a suspect has come: gives back everything else and begins to isolate it. What is to be released.
    pub(super) fn isolate(self: &Arc<Self>, state: &mut State) -> Vec<Item> {
        if state.suspects.is_empty() || state.phase != Phase::Open {
            return Vec::new();
        }
        if state.alone == Alone::No {
            state.alone = Alone::Closing;
            tokio::spawn(self.clone().run_alone());
        }
        if state.alone == Alone::Closing {
            // What goes back now would meet a consumer that is just being cancelled: a lost delivery for some brokers.
            return Vec::new();
        }
        let one = match state.alone {
            Alone::Running | Alone::Over => None,
            _ => state.suspects.pop_front(),
        };
        let back = state.waiting_ones();
        state.suspects.extend(one);
        if state.alone == Alone::Clearing && state.outstanding == 1 && state.suspects.len() == 1 {
            state.alone = Alone::Ready;
            self.ready.notify_one();
        }
        back.into_iter().map(Waiting::release).collect()
    }

    async fn run_alone(self: Arc<Self>) {
        if let Err(error) = self.source.set_flow(false).await {
            tracing::debug!(subscription = %self.spec.name, %error, "a suspect runs without the source standing still");
        }
        let back = {
            let mut state = self.state.lock();
            if state.alone == Alone::Closing {
                state.alone = Alone::Clearing;
            }
            self.isolate(&mut state)
        };
        self.settler.push(back);
        let over = self.over.notified();
        tokio::pin!(over);
        loop {
            over.as_mut().enable();
            if self.state.lock().alone == Alone::Over {
                break;
            }
            over.as_mut().await;
            over.set(self.over.notified());
        }
        let flows = || {
            let state = self.state.lock();
            state.phase == Phase::Open && !state.paused
        };
        if flows() {
            let opened = self.source.set_flow(true).await;
            // A pause may have come in between.
            let closed = if flows() { Ok(()) } else { self.source.set_flow(false).await };
            if let Err(error) = opened.and(closed) {
                tracing::warn!(subscription = %self.spec.name, %error, "could not go on after a suspect");
            }
        }
        self.state.lock().alone = Alone::No;
        self.room.notify_one();
        self.ready.notify_one();
    }

    /// The suspect is settled, or was given back.
    pub(super) fn end_isolation(&self, state: &mut State) {
        if state.alone != Alone::No {
            state.alone = Alone::Over;
            self.over.notify_waiters();
            self.over.notify_one();
        }
    }
}
