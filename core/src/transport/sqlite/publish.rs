//! Publishing: routed and stored in one transaction.

use super::clock::NEVER;
use super::error::Step;
use super::events::{Columns, NewEvent, accept};
use super::scheduled;
use super::tx::Tx;
use crate::event::Timestamp;
use crate::transport::Receipt;
use crate::{Error, ErrorKind, Result};

/// Stores a batch; one result each. An event that is refused leaves the others alone.
pub(super) fn publish(tx: &mut Tx<'_>, batch: &[NewEvent]) -> Step<Vec<Result<Receipt>>> {
    batch
        .iter()
        .map(|event| {
            let message = &event.message;
            if let Some(at) = message.deliver_at {
                return schedule(tx, event, at);
            }
            let routed = accept(tx, &Columns::from(event))?;
            if !routed && message.require_route {
                return Ok(Err(Error::new(
                    ErrorKind::Unroutable,
                    "no subscription wants the event, and it was not stored",
                )
                .field("routing_key", &message.routing_key)
                .remedy("bind a subscription to it, or publish without require_route")));
            }
            Ok(Ok(Receipt::new(message.id.clone(), Some(routed))))
        })
        .collect()
}

fn schedule(tx: &mut Tx<'_>, event: &NewEvent, at: Timestamp) -> Step<Result<Receipt>> {
    if event.message.require_route {
        return Ok(Err(Error::new(
            ErrorKind::InvalidOption,
            "whether a delayed event is wanted is not known when it is published",
        )
        .field("require_route", true)
        .remedy("leave out require_route or the delay")));
    }
    let due = tx.clock.at(at);
    if due == NEVER {
        return Ok(Err(Error::new(ErrorKind::InvalidDelay, "the event would never be delivered")
            .field("deliver_at", at)
            .remedy("choose an earlier time")));
    }
    scheduled::add(tx, &Columns::from(event), due)?;
    Ok(Ok(Receipt::new(event.message.id.clone(), None)))
}
