//! The consuming side.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout_at};

use super::broker::Broker;
use super::script::{Operation, Upset, When};
use super::sources::{Down, SourceState, Step};
use crate::Result;
use crate::transport::{Incoming, Settlement, Source, SourceHealth, Token};

/// A source of a [`MemoryTransport`](super::MemoryTransport). Dropping it releases what it holds.
#[derive(Debug)]
pub(super) struct MemorySource {
    pub(super) broker: Arc<Broker>,
    pub(super) name: Arc<str>,
    pub(super) id: u64,
    pub(super) wake: Arc<Notify>,
}

impl MemorySource {
    fn change(&self, change: impl FnOnce(&mut SourceState)) {
        self.broker.with(|state, _| {
            if let Some(source) = state.sources.get_mut(&self.name).and_then(|sources| sources.get_mut(&self.id)) {
                change(source);
            }
        });
        self.wake.notify_one();
    }

    fn disconnect(&self, down: Option<Down>, why: &str) {
        self.broker.with(|state, now| state.disconnect(&self.name, self.id, down, why, now));
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn next(&self, max: usize) -> Result<Vec<Incoming>> {
        let pause = self.broker.script.lock().pause(Operation::Next);
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let (upset, fault) = self.broker.script.lock().next();
        match upset {
            Some(Upset::Crash) => self.disconnect(None, "the consumer crashed, as its fault script has it"),
            Some(Upset::Cut(outage)) => {
                let down = Down::Until(tokio::time::Instant::now() + outage);
                self.disconnect(Some(down), "the connection was cut, as its fault script has it");
            }
            None => {}
        }
        if let Some(fault) = fault {
            self.disconnect(None, "the consumer failed, as its fault script has it");
            return Err(fault.error());
        }
        loop {
            match self.broker.with(|state, now| state.poll(&self.name, self.id, max, now)) {
                Step::Done(result) => return result,
                Step::Wait(None) => self.wake.notified().await,
                // Its time comes when somebody moves the clock, who wakes it.
                Step::Wait(Some(_)) if !self.broker.runs() => self.wake.notified().await,
                // Either way there is something to look at.
                Step::Wait(Some(at)) => drop(timeout_at(at, self.wake.notified()).await),
            }
        }
    }

    async fn settle(&self, batch: Vec<(Token, Settlement)>) -> Vec<Result<()>> {
        let pause = self.broker.script.lock().pause(Operation::Settle);
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let faults: Vec<_> = batch.iter().map(|_| self.broker.script.lock().draw(Operation::Settle)).collect();
        self.broker.with(|state, now| {
            let settle = |((token, settlement), fault): ((Token, Settlement), Option<super::script::Fault>)| match fault
            {
                Some(fault) if fault.when == When::Before => Err(fault.error()),
                fault => {
                    state.settle(&self.name, self.id, token, settlement, now)?;
                    fault.map_or(Ok(()), |fault| Err(fault.error()))
                }
            };
            batch.into_iter().zip(faults).map(settle).collect()
        })
    }

    async fn set_flow(&self, open: bool) -> Result<()> {
        self.change(|source| source.flow = open);
        Ok(())
    }

    fn health(&self) -> SourceHealth {
        self.broker.with(|state, now| state.health(&self.name, self.id, now))
    }

    async fn stop(&self) {
        self.change(|source| source.stopped = true);
    }

    async fn close(&self) {
        self.broker.with(|state, now| state.close_source(&self.name, self.id, now));
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        self.broker.with(|state, now| state.close_source(&self.name, self.id, now));
    }
}
