//! Settling deliveries: the next place is written and confirmed first, then the delivery is acked.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::outbound::{Destination, Outbound, Outcome, Reply};
use super::source::{AmqpSource, Link, stale};
use super::unsettled::Kept;
use crate::event::{Headers, Timestamp};
use crate::transport::{Settlement, Token};
use crate::{Error, ErrorKind, Result};

/// Time for the next place of a delivery to be confirmed; the delivery stays ours if it is not.
const REPUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// A delivery whose next place has to be written.
#[derive(Clone)]
struct Move {
    /// Its place in the batch.
    index: usize,
    tag: u64,
    kept: Kept,
    headers: Headers,
    to: Destination,
    due: Option<Timestamp>,
}

/// Carries out settlements, one result each, in order.
pub(super) async fn settle(source: &AmqpSource, batch: Vec<(Token, Settlement)>) -> Vec<Result<()>> {
    let mut results: Vec<Result<()>> = std::iter::repeat_with(|| Ok(())).take(batch.len()).collect();
    let Some(link) = source.link() else {
        results.fill_with(|| Err(stale()));
        return results;
    };
    let moves = at_once(source, &link, batch, &mut results);
    if !moves.is_empty() {
        move_on(source, &link, moves, &mut results).await;
    }
    results
}

/// Acks and releases, and returns what needs a next place first.
fn at_once(source: &AmqpSource, link: &Link, batch: Vec<(Token, Settlement)>, results: &mut [Result<()>]) -> Vec<Move> {
    let (mut acks, mut releases, mut moves) = (Vec::new(), Vec::new(), Vec::new());
    let mut unsettled = link.unsettled.lock();
    for (index, (token, settlement)) in batch.into_iter().enumerate() {
        let tag = token.id;
        if token.generation != link.generation || !unsettled.is_open(tag) {
            results[index] = Err(stale());
            continue;
        }
        let name = source.name.clone();
        let (headers, to, due) = match settlement {
            Settlement::Ack => {
                acks.push(tag);
                continue;
            }
            Settlement::Release => {
                releases.push(tag);
                continue;
            }
            Settlement::Retry { delay, headers } => {
                (headers, Destination::Subscription(name), (!delay.is_zero()).then(|| Timestamp::now().after(delay)))
            }
            Settlement::DeadLetter { headers } => (headers, Destination::DeadLetters(name), None),
            Settlement::Suspect { headers } => (headers, Destination::Subscription(name), None),
        };
        if let Some(kept) = unsettled.begin(tag) {
            moves.push(Move { index, tag, kept, headers, to, due });
        }
    }
    let mut alive = link.channel.status().connected();
    if alive && !acks.is_empty() {
        alive = unsettled.ack(&link.channel, &acks);
    }
    if alive && !releases.is_empty() {
        alive = unsettled.release(&link.channel, &releases);
    }
    if !alive {
        results.fill_with(|| Err(stale()));
        moves.clear();
    }
    moves
}

async fn move_on(source: &AmqpSource, link: &Arc<Link>, moves: Vec<Move>, results: &mut [Result<()>]) {
    let mut outcomes = write(source, moves.clone()).await;
    // What found no queue, or no exchange, gets a second try once everything is declared again.
    let lost: Vec<usize> = (0..moves.len()).filter(|at| homeless(&outcomes[*at])).collect();
    if !lost.is_empty() {
        tracing::warn!(subscription = %source.name, events = lost.len(), "the broker has no queue for them, declaring it again");
        match source.declare().await {
            Ok(()) => {
                let again = write(source, lost.iter().map(|at| moves[*at].clone()).collect()).await;
                for (at, outcome) in lost.into_iter().zip(again) {
                    outcomes[at] = outcome;
                }
            }
            Err(error) => {
                for at in lost {
                    outcomes[at] = Err(error.duplicate());
                }
            }
        }
    }
    let mut unsettled = link.unsettled.lock();
    let mut written = Vec::with_capacity(moves.len());
    for (moved, outcome) in moves.iter().zip(outcomes) {
        match outcome {
            Ok(Some(false)) => {
                unsettled.abandon(moved.tag);
                results[moved.index] = Err(Error::new(
                    ErrorKind::Rejected,
                    format!("the broker has no queue for the event's next place ({:?})", moved.to),
                )
                .remedy("check the bindings of the subscription's exchanges"));
            }
            Ok(_) => written.push(moved),
            Err(error) => {
                unsettled.abandon(moved.tag);
                results[moved.index] = Err(error);
            }
        }
    }
    let tags: Vec<u64> = written.iter().map(|moved| moved.tag).collect();
    // Where the ack gets lost the event is in both places, which at-least-once allows.
    if !tags.is_empty() && !unsettled.ack(&link.channel, &tags) {
        for moved in written {
            results[moved.index] = Err(stale());
        }
    }
}

fn homeless(outcome: &Outcome) -> bool {
    match outcome {
        Ok(routed) => *routed == Some(false),
        Err(error) => error.kind() == ErrorKind::Rejected && error.field_name() != Some("exchange"),
    }
}

async fn write(source: &AmqpSource, moves: Vec<Move>) -> Vec<Outcome> {
    let deadline = Instant::now() + REPUBLISH_TIMEOUT;
    source.publisher.publish(moves, |moved, reply| Ok(outbound(moved, deadline, reply))).await
}

fn outbound(moved: Move, deadline: Instant, reply: Reply) -> Outbound {
    let Move { kept, headers, to, due, .. } = moved;
    let mut out = Outbound {
        to,
        routing_key: kept.routing_key,
        id: kept.id,
        timestamp: kept.timestamp,
        body: kept.body,
        headers,
        due,
        extra: kept.extra,
        deadline: Some(deadline),
        reply,
        sent: false,
        declared_again: false,
    };
    out.fit();
    out
}
