//! Carrying out settlements.

use std::sync::Arc;

use rusqlite::params;

use super::clock::NEVER;
use super::error::Step;
use super::ledger::Held;
use super::tx::Tx;
use super::{dead_letters, events, headers, ordered};
use crate::event::name;
use crate::transport::{OnDead, OnRetry, Settlement, Token};
use crate::{Error, ErrorKind, Result};

/// A settlement with its headers encoded.
#[derive(Debug)]
pub(super) enum Verdict {
    Ack,
    Release,
    Retry {
        delay: i64,
        headers: Option<String>,
    },
    /// `parked` are the headers of the copy, should the key wait for this event.
    Dead {
        headers: Option<String>,
        parked: Option<String>,
    },
    Suspect {
        headers: Option<String>,
    },
}

impl Verdict {
    pub(super) fn new(settlement: Settlement) -> Result<Self> {
        Ok(match settlement {
            Settlement::Ack => Self::Ack,
            Settlement::Release => Self::Release,
            Settlement::Retry { delay, headers } => Self::Retry {
                delay: i64::try_from(delay.as_micros()).unwrap_or(i64::MAX / 2).min(i64::MAX / 2),
                headers: headers::encode(&headers)?,
            },
            Settlement::DeadLetter { mut headers } => {
                let plain = headers::encode(&headers)?;
                headers.set(name::PARKED, 1i64);
                Self::Dead { headers: plain, parked: headers::encode(&headers)? }
            }
            Settlement::Suspect { headers } => Self::Suspect { headers: headers::encode(&headers)? },
        })
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Self::Ack | Self::Release => 0,
            Self::Retry { headers, .. } | Self::Suspect { headers } => headers.as_ref().map_or(0, String::len),
            Self::Dead { headers, parked } => {
                headers.as_ref().map_or(0, String::len) + parked.as_ref().map_or(0, String::len)
            }
        }
    }
}

/// Settles a batch of a source; one result each. Keys of which nothing is held any more go on.
pub(super) fn settle(tx: &mut Tx<'_>, source: u64, batch: &[(Token, Verdict)]) -> Step<Vec<Result<()>>> {
    let mut results = Vec::with_capacity(batch.len());
    let mut keys: Vec<Arc<str>> = Vec::new();
    let mut subscription = 0;
    for (token, verdict) in batch {
        let Some(delivery) = Delivery::take(tx, source, *token) else {
            results.push(Err(stale(*token)));
            continue;
        };
        subscription = delivery.subscription;
        let done = match &delivery.held {
            Held::Plain(ready) => delivery.plain(tx, *ready, verdict)?,
            Held::Keyed(key) => {
                if !keys.contains(key) {
                    keys.push(key.clone());
                }
                delivery.keyed(tx, key, verdict)?
            }
        };
        results.push(if done { Ok(()) } else { Err(stale(*token)) });
    }
    for key in keys {
        if tx.state.ledger.get(source).is_some_and(|state| state.held_of(&key) == 0) {
            ordered::resume(tx.conn, subscription, &key, tx.now)?;
            tx.state.touch(subscription);
        }
    }
    Ok(results)
}

fn stale(token: Token) -> Error {
    Error::new(
        ErrorKind::StaleDelivery,
        "the delivery is no longer this source's: it was settled, or its lease has ended",
    )
    .field("token", token.id)
    .remedy("leave it; an event whose lease ended is delivered again")
}

struct Delivery {
    subscription: i64,
    owner: i64,
    event: i64,
    held: Held,
    on_retry: OnRetry,
    on_dead: OnDead,
}

impl Delivery {
    /// Takes a delivery out of the source's hands, if its lease still runs.
    fn take(tx: &mut Tx<'_>, source: u64, token: Token) -> Option<Self> {
        let state = tx.state.ledger.get(source)?;
        if state.owner.is_none_or(|owner| owner.until <= tx.now) {
            return None;
        }
        let (subscription, ordering) = (state.subscription, state.spec.ordered.unwrap_or_default());
        let (owner, event) = (token.generation.cast_signed(), token.id.cast_signed());
        let held = tx.state.ledger.let_go(source, owner, event)?;
        Some(Self { subscription, owner, event, held, on_retry: ordering.on_retry, on_dead: ordering.on_dead })
    }

    /// `false`: the row is gone, with its subscription.
    fn plain(&self, tx: &mut Tx<'_>, ready: i64, verdict: &Verdict) -> Step<bool> {
        let id = params![self.subscription, self.owner, ready, self.event];
        let remove =
            "DELETE FROM tidings_delivery WHERE subscription = ?1 AND owner = ?2 AND ready = ?3 AND event = ?4";
        let found = match verdict {
            Verdict::Ack => {
                let found = tx.conn.prepare_cached(remove)?.execute(id)?;
                if found > 0 {
                    events::unref(tx, self.event)?;
                }
                return Ok(found > 0);
            }
            Verdict::Dead { headers, .. } => {
                let found = tx.conn.prepare_cached(remove)?.execute(id)?;
                if found > 0 {
                    dead_letters::add(tx, self.subscription, self.event, false, headers.as_deref())?;
                }
                return Ok(found > 0);
            }
            Verdict::Release => tx
                .conn
                .prepare_cached("UPDATE tidings_delivery SET owner = 0 WHERE subscription = ?1 AND owner = ?2 AND ready = ?3 AND event = ?4")?
                .execute(id)?,
            Verdict::Retry { delay, headers } => self.requeue(tx, ready, tx.now.saturating_add(*delay), headers.as_deref())?,
            Verdict::Suspect { headers } => self.requeue(tx, ready, tx.now, headers.as_deref())?,
        };
        tx.state.touch(self.subscription);
        Ok(found > 0)
    }

    fn requeue(&self, tx: &Tx<'_>, ready: i64, due: i64, headers: Option<&str>) -> Step<usize> {
        Ok(tx
            .conn
            .prepare_cached(
                "UPDATE tidings_delivery SET owner = 0, ready = ?5, lost = 0, headers = ?6
                 WHERE subscription = ?1 AND owner = ?2 AND ready = ?3 AND event = ?4",
            )?
            .execute(params![self.subscription, self.owner, ready, self.event, due, headers])?)
    }

    fn keyed(&self, tx: &mut Tx<'_>, key: &str, verdict: &Verdict) -> Step<bool> {
        let (subscription, event) = (self.subscription, self.event);
        match verdict {
            Verdict::Ack => {
                let found = ordered::remove(tx, subscription, key, event)?;
                if found {
                    events::unref(tx, event)?;
                }
                Ok(found)
            }
            // It never left its place.
            Verdict::Release => Ok(true),
            Verdict::Suspect { headers } => ordered::rewrite(tx, subscription, key, event, 0, headers.as_deref()),
            Verdict::Retry { delay, headers } => {
                let due = tx.now.saturating_add(*delay);
                match self.on_retry {
                    OnRetry::Wait => ordered::rewrite(tx, subscription, key, event, due, headers.as_deref()),
                    OnRetry::Pass => {
                        let found = ordered::remove(tx, subscription, key, event)?;
                        if found {
                            events::enqueue(tx, subscription, due, event, headers.as_deref())?;
                            tx.state.touch(subscription);
                        }
                        Ok(found)
                    }
                }
            }
            Verdict::Dead { headers, parked } => match self.on_dead {
                OnDead::Skip => {
                    let found = ordered::remove(tx, subscription, key, event)?;
                    if found {
                        dead_letters::add(tx, subscription, event, false, headers.as_deref())?;
                    }
                    Ok(found)
                }
                OnDead::Park => {
                    let found = ordered::rewrite(tx, subscription, key, event, NEVER, headers.as_deref())?;
                    if found {
                        dead_letters::add(tx, subscription, event, true, parked.as_deref())?;
                    }
                    Ok(found)
                }
            },
        }
    }
}
