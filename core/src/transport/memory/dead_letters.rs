//! A walk over the dead letters of a subscription.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::broker::Broker;
use super::script::{Fault, Operation, When};
use super::subscription::Subscription;
use crate::transport::{DeadLetters, Message, StoredDeadLetter, Token};
use crate::{Error, ErrorKind, Result};

/// A walk up to the last dead letter that was there when it was opened.
#[derive(Debug)]
pub(super) struct MemoryDeadLetters {
    broker: Arc<Broker>,
    name: Arc<str>,
    /// The subscription, and not a later one of the same name.
    id: u64,
    depth: u64,
    /// The last one seen, and the last one to see.
    seen: u64,
    end: u64,
}

impl MemoryDeadLetters {
    pub(super) fn open(broker: Arc<Broker>, name: &str) -> Result<Self> {
        let (id, depth, end) = broker.with(|state, _| {
            let subscription = state.subscriptions.get(name).ok_or_else(|| not_found(name))?;
            Ok::<_, Error>((subscription.id, subscription.dead.len() as u64, subscription.last_dead))
        })?;
        Ok(Self { broker, name: name.into(), id, depth, seen: 0, end })
    }

    /// Does `what` to one dead letter after the other, with the faults that are scripted for replays.
    async fn each<T>(
        &self,
        batch: Vec<T>,
        mut what: impl FnMut(&mut Subscription, T, Instant) -> Result<()>,
    ) -> Vec<Result<()>> {
        let pause = self.broker.script.lock().pause(Operation::Replay);
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let faults: Vec<_> = batch.iter().map(|_| self.broker.script.lock().draw(Operation::Replay)).collect();
        self.broker.with(|state, now| {
            let mut one = |item: T, fault: Option<Fault>| {
                if let Some(fault) = fault.filter(|fault| fault.when == When::Before) {
                    return Err(fault.error());
                }
                let subscription = state.subscriptions.get_mut(&self.name).filter(|it| it.id == self.id);
                let subscription = subscription.ok_or_else(|| not_found(&self.name))?;
                subscription.advance(now);
                what(subscription, item, now)?;
                fault.map_or(Ok(()), |fault| Err(fault.error().with_unknown_outcome()))
            };
            let results = batch.into_iter().zip(faults).map(|(item, fault)| one(item, fault)).collect();
            state.wake(&self.name);
            results
        })
    }
}

fn not_found(name: &str) -> Error {
    Error::new(ErrorKind::SubscriptionNotFound, "there is no such subscription")
        .field("subscription", name)
        .remedy("check the name, or subscribe first")
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    fn depth(&self) -> u64 {
        self.depth
    }

    async fn next(&mut self, max: usize) -> Result<Vec<StoredDeadLetter>> {
        let found: Vec<_> = self.broker.with(|state, _| {
            let subscription = state.subscriptions.get(&self.name).filter(|it| it.id == self.id);
            let subscription = subscription.ok_or_else(|| not_found(&self.name))?;
            let rest = subscription.dead.range(self.seen + 1..).take_while(|(id, _)| **id <= self.end).take(max);
            let show = |(id, message): (u64, &Message)| StoredDeadLetter {
                token: Token { id, generation: self.id },
                message: message.clone(),
            };
            Ok::<_, Error>(rest.map(|(id, dead)| show((*id, &dead.message))).collect())
        })?;
        if let Some(last) = found.last() {
            self.seen = last.token.id;
        }
        Ok(found)
    }

    async fn replay(&mut self, batch: Vec<(Token, Message)>) -> Vec<Result<()>> {
        self.each(batch, |subscription, (token, message), now| subscription.replay(token.id, message.headers, now))
            .await
    }

    async fn discard(&mut self, batch: Vec<Token>) -> Vec<Result<()>> {
        self.each(batch, |subscription, token, now| subscription.discard(token.id, now)).await
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
