//! What becomes of a head that is not simply done: held, parked, dead, or moved to where it is no longer in order.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::outbound::{Destination, Outcome};
use super::super::source::stale;
use super::super::topology::Declarer;
use super::journal::{Record, Waits};
use super::key::{Head, KeyId};
use super::keys::Request;
use super::owner::{Owner, gone};
use crate::event::{Headers, Timestamp, name};
use crate::transport::{OnDead, OnRetry, Settlement};
use crate::{Error, ErrorKind, Result};

pub(super) type Answer = oneshot::Sender<Result<()>>;

/// Tells the session, if it still waits.
pub(super) fn tell(answer: Answer, result: Result<()>) {
    let _nobody_waits = answer.send(result);
}

impl Owner {
    /// Carries out a settlement that takes more than an ack.
    pub(super) fn settle(&mut self, request: Request) -> Result<()> {
        let Request { number, settlement, reply } = request;
        let Some(id) = self.shared.keys.lock().begin(number) else {
            tell(reply, Err(stale()));
            return Ok(());
        };
        let order = self.shared.spec.ordered.unwrap_or_default();
        let (waits, parks) = (order.on_retry == OnRetry::Wait, order.on_dead == OnDead::Park);
        match settlement {
            Settlement::Retry { delay, headers } if id.is_named() && waits => self.postpone(&id, delay, headers, reply),
            Settlement::Retry { delay, headers } => {
                let due = (!delay.is_zero()).then(|| Timestamp::now().after(delay));
                let to = Destination::Subscription(self.shared.name.clone());
                self.move_away(id, number, to, headers, due, reply)
            }
            Settlement::DeadLetter { headers } if id.is_named() && parks => self.die(id, number, headers, reply),
            Settlement::DeadLetter { headers } => {
                let to = Destination::DeadLetters(self.shared.name.clone());
                self.move_away(id, number, to, headers, None, reply)
            }
            Settlement::Suspect { headers } => self.postpone(&id, Duration::ZERO, headers, reply),
            Settlement::Ack | Settlement::Release => {
                self.shared.keys.lock().undo(&id, number);
                tell(reply, Err(Error::new(ErrorKind::Internal, "a settlement took the wrong way")));
                Ok(())
            }
        }
    }

    /// The head is handled again after `delay`, with these headers, and its key waits for it.
    fn postpone(&mut self, id: &KeyId, delay: Duration, headers: Headers, reply: Answer) -> Result<()> {
        let now = Timestamp::now();
        let Some((head, parked)) = self.head(id) else {
            tell(reply, Err(stale()));
            return Ok(());
        };
        let due = now.after(delay);
        let state = if parked { Waits::Parked } else { Waits::Held };
        let mut record = Record { id: head, state, due, since: now, crashes: 0, skip: false, headers };
        let too_long = delay > self.shared.spec.hold_max && id.is_named();
        if !parked && too_long && self.may_park() {
            record.state = Waits::Parked;
            self.park(id.clone(), record, Some(reply));
            return Ok(());
        }
        let of = id.clone();
        self.record(id, record, move |owner| {
            tell(reply, Ok(()));
            if parked && !delay.is_zero() {
                return owner.rest(&of);
            }
            {
                let mut keys = owner.shared.keys.lock();
                if let Some(key) = keys.all.get_mut(&of) {
                    key.head = Head::Idle;
                    if let Some(front) = key.front() {
                        front.uncounted = false;
                    }
                }
                keys.consider(&of);
            }
            owner.relieve();
            Ok(())
        })
    }

    /// The head is dead and its key waits: a copy goes among the dead letters first, so that it is seen.
    fn die(&mut self, id: KeyId, number: u64, headers: Headers, reply: Answer) -> Result<()> {
        let Some((head, parked)) = self.head(&id) else {
            tell(reply, Err(stale()));
            return Ok(());
        };
        if !parked && !self.may_park() {
            self.shared.keys.lock().undo(&id, number);
            tell(reply, Err(too_many(self.shared.spec.max_parked)));
            return Ok(());
        }
        let mut copy = headers.clone();
        copy.set(name::PARKED, &*self.shared.queue);
        let to = Destination::DeadLetters(self.shared.name.clone());
        let outs = {
            let mut keys = self.shared.keys.lock();
            let Some(event) = keys.all.get_mut(&id).and_then(|key| key.front()) else { return Ok(()) };
            let (message, extra) = (event.message.clone(), event.extra.clone());
            let make = move |out| super::event::Event::copy(message, extra, copy, to, out);
            vec![Box::new(make) as Box<dyn FnOnce(_) -> _ + Send>]
        };
        self.dying.insert(id.clone());
        self.publish(outs, move |owner, outcomes| {
            if let Some(error) = refused(outcomes)? {
                owner.dying.remove(&id);
                owner.shared.keys.lock().undo(&id, number);
                tell(reply, Err(error));
                return Ok(());
            }
            let now = Timestamp::now();
            let record =
                Record { id: head, state: Waits::Dead, due: now, since: now, crashes: 0, skip: false, headers };
            if !parked {
                owner.park(id, record, Some(reply));
                return Ok(());
            }
            let of = id.clone();
            owner.record(&id, record, move |owner| {
                tell(reply, Ok(()));
                owner.rest(&of)
            })
        })
    }

    /// The head goes where it is no longer in order, and its key goes on.
    fn move_away(
        &mut self,
        id: KeyId,
        number: u64,
        to: Destination,
        headers: Headers,
        due: Option<Timestamp>,
        reply: Answer,
    ) -> Result<()> {
        if due.is_some() && !self.lattice {
            let (live, infrastructure) = (self.live.clone(), self.shared.infrastructure);
            let declaring = async move {
                let declarer = Declarer::on(&live).await?;
                let made = declarer.lattice(infrastructure).await;
                declarer.close_after(made).await
            };
            self.when(declaring, move |owner, declared| {
                if let Err(error) = declared {
                    owner.shared.keys.lock().undo(&id, number);
                    tell(reply, Err(error));
                    return Ok(());
                }
                owner.lattice = true;
                owner.move_away(id, number, to, headers, due, reply)
            });
            return Ok(());
        }
        let outs = {
            let mut keys = self.shared.keys.lock();
            let Some(event) = keys.all.get_mut(&id).and_then(|key| key.front()) else {
                tell(reply, Err(stale()));
                return Ok(());
            };
            let (message, extra) = (event.message.clone(), event.extra.clone());
            let make = move |out| {
                let mut out = super::event::Event::copy(message, extra, headers, to, out);
                out.due = due;
                out
            };
            vec![Box::new(make) as Box<dyn FnOnce(_) -> _ + Send>]
        };
        self.publish(outs, move |owner, outcomes| {
            let result = refused(outcomes)?;
            let mut keys = owner.shared.keys.lock();
            if let Some(error) = result {
                keys.undo(&id, number);
                tell(reply, Err(error));
            } else {
                keys.finished(&id);
                tell(reply, Ok(()));
            }
            Ok(())
        })
    }

    /// An earlier owner may have started the head: that is written down before it starts again.
    pub(super) fn count(&mut self, id: &KeyId) -> Result<()> {
        let now = Timestamp::now();
        let record = {
            let mut keys = self.shared.keys.lock();
            let Some(key) = keys.all.get_mut(id) else { return Ok(()) };
            let parked = key.parked.is_some();
            let old = key.record.clone();
            let Some(front) = key.front() else { return Ok(()) };
            let (head, headers) = (front.message.id.clone(), front.message.headers.clone());
            let state = if parked { Waits::Parked } else { Waits::Held };
            match old.filter(|record| record.id == head) {
                Some(record) => Record { state, crashes: record.crashes.saturating_add(1), ..record },
                None => Record { id: head, state, due: now, since: now, crashes: 1, skip: false, headers },
            }
        };
        let of = id.clone();
        self.record(id, record, move |owner| {
            let mut keys = owner.shared.keys.lock();
            if let Some(key) = keys.all.get_mut(&of) {
                key.head = Head::Idle;
                if let Some(front) = key.front() {
                    front.uncounted = false;
                }
            }
            keys.consider(&of);
            drop(keys);
            owner.shared.ready.notify_one();
            Ok(())
        })
    }

    /// Where held keys have more than half of the prefetch, the largest of them is parked.
    pub(super) fn relieve(&mut self) {
        let largest = self.shared.keys.lock().largest_beyond_half(self.shared.spec.prefetch);
        if let Some(id) = largest.filter(|_| self.may_park()) {
            self.park_as_it_is(id);
        }
    }

    /// The id of a key's head, and whether the key is parked.
    pub(super) fn head(&self, id: &KeyId) -> Option<(std::sync::Arc<str>, bool)> {
        let mut keys = self.shared.keys.lock();
        let key = keys.all.get_mut(id)?;
        let parked = key.parked.is_some();
        key.front().map(|event| (event.message.id.clone(), parked))
    }

    pub(super) fn may_park(&self) -> bool {
        self.shared.parked() < usize::try_from(self.shared.spec.max_parked).unwrap_or(usize::MAX)
    }

    /// Looks at the key again at this time.
    pub(super) fn wake_when_due(&self, id: &KeyId, due: Timestamp) {
        let at = Instant::now() + due.since(Timestamp::now());
        self.shared.keys.lock().wake_at(at, id);
    }
}

/// Why the broker did not take a message that has its place outside the order: that may pass.
fn refused(outcomes: Vec<Outcome>) -> Result<Option<Error>> {
    match outcomes.into_iter().next() {
        Some(Ok(Some(false))) => Err(gone("the broker has no queue for an event's next place")),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Ok(Some(error)),
        None => Err(gone("a publish has no outcome")),
    }
}

fn too_many(max_parked: u32) -> Error {
    Error::new(ErrorKind::Rejected, "as many keys are parked as may be, so the key is held and its event tried again")
        .field("max_parked", max_parked)
        .remedy("replay or discard dead letters of the subscription, or raise max_parked")
}
