//! Messages that were sent on one channel and wait for their confirms.
//!
//! Only the oldest one is awaited: confirms mostly come in order and many at once, so a wake-up finds a whole run of
//! them done. A sweep over all of them finds those that were confirmed before the oldest.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lapin::Channel;
use lapin::message::BasicReturnMessage;
use tokio::sync::Semaphore;

use super::error;
use super::lane::{Answer, Lane, lane};
use super::outbound::{Frame, Outbound};
use crate::{Error, ErrorKind};

/// Id, exchange and routing key of a message that the server returned.
type Returned = (String, String, String);

/// Lanes that are kept for later messages.
const MAX_IDLE: usize = 1024;

struct Slot {
    /// `None` once it is done, while an older one is not.
    out: Option<Outbound>,
    confirm: Waiting,
    exchange: Arc<str>,
    tells_route: bool,
}

/// A confirm that is awaited, or what there is instead.
enum Waiting {
    Open(Box<dyn Lane>),
    Failed(lapin::Error),
    Over,
}

impl Waiting {
    /// Gives the lane back with the answer.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<lapin::Result<(Answer, Box<dyn Lane>)>> {
        match std::mem::replace(self, Self::Over) {
            Self::Open(mut lane) => match lane.poll(cx) {
                Poll::Ready(Ok(answer)) => Poll::Ready(Ok((answer, lane))),
                Poll::Ready(Err(e)) => {
                    *self = Self::Failed(e.clone());
                    Poll::Ready(Err(e))
                }
                Poll::Pending => {
                    *self = Self::Open(lane);
                    Poll::Pending
                }
            },
            Self::Failed(e) => {
                *self = Self::Failed(e.clone());
                Poll::Ready(Err(e))
            }
            Self::Over => Poll::Pending,
        }
    }
}

struct Done {
    out: Outbound,
    exchange: Arc<str>,
    tells_route: bool,
    /// The server returned this very message with its confirm.
    returned: bool,
    acked: bool,
}

/// The unconfirmed messages of a channel.
pub(super) struct Window {
    channel: Arc<Channel>,
    slots: VecDeque<Slot>,
    /// Messages without an outcome.
    open: usize,
    /// lapin hands a returned message to whichever confirm comes next, so that it must be matched by what it says.
    returned: HashMap<Returned, usize>,
    done: Vec<Done>,
    idle: Vec<Box<dyn Lane>>,
    /// Room in the queue, given back with every outcome.
    permits: Arc<Semaphore>,
}

/// The channel does not serve any more.
pub(super) struct Lost {
    /// Why, in the server's words if it gave any.
    pub(super) error: lapin::Error,
    /// What was not confirmed, in the order of sending.
    pub(super) unconfirmed: Vec<(Outbound, Arc<str>)>,
}

impl Window {
    pub(super) fn new(channel: Channel, permits: Arc<Semaphore>) -> Self {
        let channel = Arc::new(channel);
        Self {
            channel,
            slots: VecDeque::new(),
            open: 0,
            returned: HashMap::new(),
            done: Vec::new(),
            idle: Vec::new(),
            permits,
        }
    }

    /// Messages without an outcome.
    pub(super) fn len(&self) -> usize {
        self.open
    }

    /// Sends a message. An error means that the channel is gone; the message is in the window all the same.
    pub(super) fn send(&mut self, mut out: Outbound, frame: Frame) -> Result<(), lapin::Error> {
        out.sent = true;
        let mut lane = self.idle.pop().unwrap_or_else(|| lane(self.channel.clone()));
        let (exchange, tells_route) = (frame.to.clone(), frame.tells_route);
        lane.start(out.body.clone(), frame);
        let mut confirm = Waiting::Open(lane);
        // The first poll puts the frames into lapin's queue; nobody needs to hear that they left it.
        let first = confirm.poll(&mut Context::from_waker(Waker::noop()));
        self.open += 1;
        self.slots.push_back(Slot { out: Some(out), confirm, exchange, tells_route });
        match first {
            Poll::Ready(Ok((answer, lane))) => {
                self.confirmed(self.slots.len() - 1, answer, lane);
                Ok(())
            }
            Poll::Ready(Err(e)) => Err(e),
            Poll::Pending => Ok(()),
        }
    }

    /// Hands over the outcomes of the oldest messages once the oldest of all has one. Registers `cx` with it otherwise.
    pub(super) fn poll_oldest(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, lapin::Error>> {
        let before = self.open;
        loop {
            let mut progress = false;
            while let Some(slot) = self.slots.front_mut() {
                if slot.out.is_some() {
                    match slot.confirm.poll(cx) {
                        Poll::Ready(Ok((answer, lane))) => {
                            progress = true;
                            self.confirmed(0, answer, lane);
                        }
                        Poll::Ready(Err(e)) => {
                            self.decide();
                            return Poll::Ready(Err(e));
                        }
                        Poll::Pending => break,
                    }
                }
                self.slots.pop_front();
            }
            if !progress || self.slots.is_empty() {
                break;
            }
            // One `multiple` confirm is worked off message by message, in any order, on lapin's thread: a return may be
            // with one of the next. After this, all of them are done.
            self.fence();
        }
        self.decide();
        if self.open < before { Poll::Ready(Ok(before - self.open)) } else { Poll::Pending }
    }

    /// Waits until lapin has worked off the confirm that it is at: that lock is held for all of it.
    fn fence(&self) {
        let wait = std::pin::pin!(self.channel.wait_for_confirms());
        // The poll takes the lock; what it would wait for does not matter.
        let _ = wait.poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Looks at every message, and hands over the outcomes there are.
    pub(super) fn sweep(&mut self) -> usize {
        let before = self.open;
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            // Until nothing new is found: a return of a message found in this round may be with one found in the next.
            let mut found = false;
            for at in 0..self.slots.len() {
                let slot = &mut self.slots[at];
                if slot.out.is_none() {
                    continue;
                }
                match slot.confirm.poll(&mut cx) {
                    Poll::Ready(Ok((answer, lane))) => {
                        found = true;
                        self.confirmed(at, answer, lane);
                    }
                    Poll::Ready(Err(_)) | Poll::Pending => {}
                }
            }
            if !found {
                break;
            }
        }
        self.decide();
        before - self.open
    }

    fn confirmed(&mut self, at: usize, answer: Answer, lane: Box<dyn Lane>) {
        if self.idle.len() < MAX_IDLE {
            self.idle.push(lane);
        }
        let slot = &mut self.slots[at];
        let Some(out) = slot.out.take() else { return };
        let mut done = Done {
            out,
            exchange: slot.exchange.clone(),
            tells_route: slot.tells_route,
            returned: false,
            acked: answer.acked,
        };
        if let Some(message) = answer.returned {
            let key = key_of(&message);
            if done.is(&key) {
                done.returned = true;
            } else {
                *self.returned.entry(key).or_default() += 1;
            }
        }
        self.done.push(done);
    }

    /// Tells those who wait what came of the messages that are done.
    fn decide(&mut self) {
        let mut freed = 0;
        for mut done in self.done.drain(..) {
            self.open -= 1;
            freed += done.out.weight();
            if !done.returned && !self.returned.is_empty() {
                let key = (done.out.id.to_string(), done.exchange.to_string(), done.out.routing_key.to_string());
                if let Some(count) = self.returned.get_mut(&key) {
                    done.returned = true;
                    *count -= 1;
                    if *count == 0 {
                        self.returned.remove(&key);
                    }
                }
            }
            let outcome = if done.acked {
                // For a message of ours a return is news even where it says nothing about the event's subscriptions.
                Ok((done.tells_route || done.returned).then_some(!done.returned))
            } else {
                Err(Error::new(ErrorKind::Rejected, "the broker answered that it did not take the event")
                    .field("exchange", &done.exchange)
                    .remedy("a queue with x-overflow reject-publish is full: consume from it or raise its limit"))
            };
            done.out.reply.finish(outcome);
        }
        if freed > 0 {
            self.permits.add_permits(freed);
        }
    }

    /// The messages without an outcome, oldest first.
    pub(super) fn messages(&mut self) -> impl Iterator<Item = &mut Outbound> {
        self.slots.iter_mut().filter_map(|slot| slot.out.as_mut())
    }

    /// Gives back what is not confirmed.
    pub(super) fn lost(mut self, error: lapin::Error) -> Lost {
        self.sweep();
        let mut cause = error;
        let mut unconfirmed = Vec::with_capacity(self.open);
        let mut cx = Context::from_waker(Waker::noop());
        for mut slot in self.slots {
            let Some(out) = slot.out else { continue };
            if error::answer(&cause).is_none()
                && let Poll::Ready(Err(e)) = slot.confirm.poll(&mut cx)
                && error::answer(&e).is_some()
            {
                cause = e;
            }
            if out.reply.finished() {
                self.permits.add_permits(out.weight());
            } else {
                unconfirmed.push((out, slot.exchange));
            }
        }
        Lost { error: cause, unconfirmed }
    }

    /// Whether the server or the network has ended the channel.
    pub(super) fn ended(&self) -> bool {
        !self.channel.status().connected()
    }
}

impl Done {
    fn is(&self, key: &Returned) -> bool {
        key.0 == *self.out.id && key.1 == *self.exchange && key.2 == *self.out.routing_key
    }
}

fn key_of(message: &BasicReturnMessage) -> Returned {
    let id = message.delivery.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
    (id, message.delivery.exchange.to_string(), message.delivery.routing_key.to_string())
}
