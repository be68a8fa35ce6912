//! Consumers that wait for deliveries.
//!
//! They wait in the writer thread, which serves them in the transaction that brings what they wait for: an event is
//! published and handed over with one commit.

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::claim;
use super::clock::NEVER;
use super::error::Step;
use super::tx::{State, Tx};
use crate::transport::Incoming;
use crate::{Error, Result};

/// A consumer that waits.
pub(super) struct Next {
    source: u64,
    max: usize,
    reply: oneshot::Sender<Result<Vec<Incoming>>>,
    /// To be tried in the next transaction.
    woken: bool,
    /// When the next delivery falls due that is known of.
    due: i64,
}

impl Next {
    pub(super) fn new(source: u64, max: usize, reply: oneshot::Sender<Result<Vec<Incoming>>>) -> Self {
        Self { source, max: max.max(1), reply, woken: true, due: NEVER }
    }
}

/// What a consumer gets once the transaction is durable.
pub(super) struct Served {
    next: Next,
    claimed: Result<Vec<Incoming>>,
}

impl Served {
    /// Hands it over; if the consumer has gone, returns its source and what nobody got.
    pub(super) fn answer(self) -> Option<(u64, Vec<Incoming>)> {
        let source = self.next.source;
        match self.next.reply.send(self.claimed) {
            Err(Ok(claimed)) if !claimed.is_empty() => Some((source, claimed)),
            _ => None,
        }
    }
}

/// All consumers that wait, in the order of their arrival.
#[derive(Default)]
pub(super) struct Waiting(Vec<Next>);

impl Waiting {
    pub(super) fn push(&mut self, next: Next) {
        self.0.push(next);
    }

    /// Whether anybody waits for events, so that other processes must be watched.
    pub(super) fn watching(&self, state: &State) -> bool {
        self.0.iter().any(|next| state.ledger.get(next.source).is_some_and(|source| source.flowing))
    }

    /// When the next of them must be tried; the past if one must be now.
    pub(super) fn due(&self, state: &State) -> i64 {
        self.0
            .iter()
            .map(|next| match state.ledger.get(next.source) {
                Some(source) if !source.stopped => {
                    if !source.flowing {
                        NEVER
                    } else if next.woken {
                        0
                    } else {
                        next.due
                    }
                }
                _ => 0,
            })
            .min()
            .unwrap_or(NEVER)
    }

    /// Tries all of them in the next transaction.
    pub(super) fn wake(&mut self) {
        self.0.iter_mut().for_each(|next| next.woken = true);
    }

    /// Reads again when each of them has something to claim, without the store's lock.
    pub(super) fn peek(&mut self, conn: &Connection, state: &State) -> Step<()> {
        for next in &mut self.0 {
            if let Some(source) = state.ledger.get(next.source) {
                next.due =
                    claim::next_ready(conn, source.subscription, source.spec.ordered.is_some())?.unwrap_or(NEVER);
            }
        }
        Ok(())
    }

    /// Claims for those that may get something. They are answered once the transaction is durable.
    pub(super) fn serve(&mut self, tx: &mut Tx<'_>, served: &mut Vec<Served>) -> Step<()> {
        let mut at = 0;
        while at < self.0.len() {
            let next = &mut self.0[at];
            let claimed = match tx.state.ledger.get(next.source) {
                Some(source) if !source.stopped => {
                    let touched = tx.state.touched.contains(&source.subscription);
                    if next.reply.is_closed() {
                        self.0.remove(at);
                        continue;
                    }
                    if !source.flowing || !(next.woken || touched || next.due <= tx.now) {
                        at += 1;
                        continue;
                    }
                    let (subscription, keyed) = (source.subscription, source.spec.ordered.is_some());
                    let claimed = claim::claim(tx, next.source, next.max)?;
                    if claimed.is_empty() {
                        next.woken = false;
                        next.due = claim::next_ready(tx.conn, subscription, keyed)?.unwrap_or(NEVER);
                        at += 1;
                        continue;
                    }
                    Ok(claimed)
                }
                // Stopped or closed: nothing will come.
                Some(source) => source.failure.as_ref().map_or_else(|| Ok(Vec::new()), |error| Err(error.duplicate())),
                None => Ok(Vec::new()),
            };
            served.push(Served { next: self.0.remove(at), claimed });
        }
        Ok(())
    }

    /// The transaction was void: they wait on.
    pub(super) fn restore(&mut self, served: Vec<Served>) {
        let mut back: Vec<Next> = served.into_iter().map(|served| served.next).collect();
        back.append(&mut self.0);
        self.0 = back;
        self.wake();
    }

    /// Ends them all with an error that waiting does not cure.
    pub(super) fn fail(&mut self, error: &Error) {
        for next in self.0.drain(..) {
            // Whoever has gone does not want to know.
            drop(next.reply.send(Err(error.duplicate())));
        }
    }
}
