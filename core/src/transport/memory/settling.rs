//! What becomes of a delivery, and of a dead letter, in its subscription.

use std::time::Duration;

use tokio::time::Instant;

use super::subscription::{Dead, Delivered, Ready, Stored, Subscription};
use crate::event::{Headers, name};
use crate::transport::{Message, OnDead, OnRetry, Settlement, Token};
use crate::{Error, ErrorKind, Result};

/// Longest delay that is kept.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(super) fn stale() -> Error {
    Error::new(ErrorKind::StaleDelivery, "the delivery is no longer this consumer's")
        .remedy("do nothing: if it was not settled, it is delivered again")
}

fn gone() -> Error {
    Error::new(ErrorKind::StaleDelivery, "the dead letter is gone: someone else has replayed or discarded it")
        .remedy("open the dead letters again")
}

impl Subscription {
    /// Carries out one settlement.
    pub(super) fn settle(&mut self, token: Token, settlement: Settlement, now: Instant) -> Result<()> {
        if self.in_flight.get(&token.id).is_none_or(|delivered| delivered.generation != token.generation) {
            return Err(stale());
        }
        let Some(Delivered { mut event, .. }) = self.in_flight.remove(&token.id) else { return Err(stale()) };
        let key = self.key_of(&event.message);
        match settlement {
            Settlement::Ack => {}
            Settlement::Release => self.place(event, now),
            Settlement::Retry { delay, headers } => {
                event.message.headers = headers;
                event.lost = 0;
                self.delay(event, now + delay.min(MAX_DELAY), now);
            }
            Settlement::DeadLetter { headers } => self.bury(event, headers, now),
            Settlement::Suspect { headers } => {
                event.message.headers = headers;
                event.lost = 0;
                self.place(event, now);
            }
        }
        if let Some(key) = key {
            self.keys.settled(&key, now);
        }
        Ok(())
    }

    /// Puts back everything that the connection `generation` holds; after a crash that counts against the events.
    pub(super) fn release(&mut self, generation: u64, crashed: bool, now: Instant) {
        let (held, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.in_flight)
            .into_iter()
            .partition(|(_, delivered)| delivered.generation == generation);
        self.in_flight = kept.into_iter().collect();
        for (_, Delivered { mut event, .. }) in held {
            event.lost = event.lost.saturating_add(u32::from(crashed));
            let key = self.key_of(&event.message);
            self.place(event, now);
            if let Some(key) = key {
                self.keys.settled(&key, now);
            }
        }
    }

    /// Keeps an event for later: in its place if its key waits for it, else outside of any order.
    fn delay(&mut self, mut event: Stored, at: Instant, now: Instant) {
        let waits = self.ordered.is_some_and(|ordering| ordering.on_retry == OnRetry::Wait);
        if waits && event.message.key.is_some() {
            (event.ready, event.since) = (Ready::At(at), now);
            self.place(event, now);
        } else {
            event.ready = Ready::Now;
            self.delayed.insert((at, event.sequence), event);
        }
        self.advance(now);
    }

    /// Makes a dead letter; the head of a key that parks stays, and the dead letter is a copy of it.
    fn bury(&mut self, mut event: Stored, headers: Headers, now: Instant) {
        let parks = self.ordered.is_some_and(|ordering| ordering.on_dead == OnDead::Park);
        let key = event.message.key.clone().filter(|_| parks);
        let mut message = Message { headers, ..event.message.clone() };
        let parked = key.map(|key| {
            message.headers.set(name::PARKED, 1i64);
            (key, event.sequence)
        });
        if parked.is_some() {
            (event.ready, event.since) = (Ready::Parked, now);
            self.place(event, now);
        }
        self.last_dead += 1;
        self.dead.insert(self.last_dead, Dead { message, parked });
    }

    /// Puts a dead letter back with other headers: a parked one to the head of its key, any other behind all events.
    pub(super) fn replay(&mut self, id: u64, headers: Headers, now: Instant) -> Result<()> {
        let dead = self.dead.remove(&id).ok_or_else(gone)?;
        match dead.parked {
            Some((key, sequence)) => {
                self.keys.resume(&key, sequence, headers, now);
            }
            None => self.push(Message { headers, ..dead.message }, now),
        }
        Ok(())
    }

    /// Drops a dead letter and, where it was a parked head's copy, that head.
    pub(super) fn discard(&mut self, id: u64, now: Instant) -> Result<()> {
        let dead = self.dead.remove(&id).ok_or_else(gone)?;
        if let Some((key, sequence)) = dead.parked {
            self.keys.drop_parked(&key, sequence, now);
        }
        Ok(())
    }
}
