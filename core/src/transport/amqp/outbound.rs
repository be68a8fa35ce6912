//! A message on its way out, and whoever waits for it.

use std::sync::Arc;
use std::task::{Poll, Waker};

use futures_util::task::AtomicWaker;
use lapin::BasicProperties;
use lapin::types::{FieldTable, ShortString};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::headers::{properties, short, text};
use super::lattice;
use super::publisher::CAPACITY;
use super::topology::{DELIVER, arguments, dead_letter_exchange, to_exchange, to_queue};
use crate::event::{Headers, Payload, Timestamp, name};
use crate::transport::Message;
use crate::{Error, ErrorKind, Result};

/// Bytes of body that count as one more message towards the bound of the queue.
const BODY_PER_PERMIT: usize = 16 * 1024;
/// Headers beyond this would not fit the frame of 128 KiB that the server negotiates by default.
const MAX_FRAME_HEADERS: usize = 120 * 1024;

/// Room for all properties that are no headers, and for what steers a delay.
const OTHER_PROPERTIES: usize = 4 * 1024;

/// Where a message goes in the end.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// Whatever is bound to the exchange.
    Exchange(Arc<str>),
    /// One subscription, under the event's own routing key.
    Subscription(Arc<str>),
    /// The dead letters of a subscription.
    DeadLetters(Arc<str>),
    /// The queue that the routing key names.
    Queue,
}

/// What must have been declared before a message can be published.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Needs {
    /// A topic exchange.
    Exchange(Arc<str>),
    /// The lattice, and its way into an exchange.
    Scheduled(Arc<str>),
    /// The lattice.
    Lattice,
    /// What the subscription itself has declared.
    Nothing,
}

/// A message to be published until it is confirmed or its deadline passes.
pub(super) struct Outbound {
    pub(super) to: Destination,
    pub(super) routing_key: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) timestamp: Timestamp,
    pub(super) body: Payload,
    pub(super) headers: Headers,
    /// Not delivered before.
    pub(super) due: Option<Timestamp>,
    /// What a foreign publisher had set.
    pub(super) extra: Option<Arc<BasicProperties>>,
    pub(super) deadline: Option<Instant>,
    pub(super) reply: Reply,
    /// It was given to a connection at least once: its outcome is unknown until a confirm.
    pub(super) sent: bool,
    /// Its exchange was declared again after the server had said that there is none.
    pub(super) declared_again: bool,
}

/// A message as the channel takes it.
pub(super) struct Frame {
    pub(super) exchange: ShortString,
    /// The exchange once more, for whoever has to remember it.
    pub(super) to: Arc<str>,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) needs: Needs,
    /// A return says something about the event's subscriptions.
    pub(super) tells_route: bool,
}

impl Outbound {
    /// An event of a publisher.
    pub(super) fn event(message: Message, reply: Reply) -> Self {
        let deadline = message.gives_up_at();
        Self {
            to: Destination::Exchange(message.exchange),
            routing_key: message.routing_key,
            id: message.id,
            // The body has the time. As a property it would only cost the broker CPU (ADR 6).
            timestamp: Timestamp::EPOCH,
            body: message.body,
            headers: message.headers,
            due: message.deliver_at,
            extra: None,
            deadline,
            reply,
            sent: false,
            declared_again: false,
        }
    }

    /// Share of the queue's bound that it takes.
    pub(super) fn weight(&self) -> usize {
        (1 + self.body.len() / BODY_PER_PERMIT).min(CAPACITY / 4)
    }

    /// Names, properties and way at this moment: a delay gets shorter while it waits for a connection.
    ///
    /// `frame_max`: AMQP cannot split headers over frames, and a larger one ends the connection.
    pub(super) fn frame(&self, frame_max: usize) -> Result<Frame> {
        if !self.headers.is_empty() && self.headers.size() + OTHER_PROPERTIES > frame_max {
            return Err(Error::new(
                ErrorKind::HeadersTooLarge,
                format!("the headers do not fit the broker's frame of {frame_max} bytes"),
            )
            .field("headers", self.headers.size())
            .remedy("move large values into the event's data, or raise frame_max on the broker and in its URL"));
        }
        let delay = self.due.map(|due| due.since(Timestamp::now()));
        let route = match (&self.to, delay) {
            (Destination::Exchange(exchange), Some(delay)) => lattice::route(delay, &to_exchange(exchange))?,
            (Destination::Subscription(name), Some(delay)) => lattice::route(delay, &to_queue(name))?,
            _ => None,
        };
        let tells_route = route.is_none() && matches!(self.to, Destination::Exchange(_));
        let (to, steering, needs): (Arc<str>, _, _) = match (route, &self.to) {
            (Some(route), Destination::Exchange(exchange)) => {
                (route.exchange.into(), Some(route.steering), Needs::Scheduled(exchange.clone()))
            }
            (Some(route), _) => (route.exchange.into(), Some(route.steering), Needs::Lattice),
            (None, Destination::Exchange(exchange)) => (exchange.clone(), None, Needs::Exchange(exchange.clone())),
            (None, Destination::Subscription(name)) => (DELIVER.into(), Some(steer_to(name)), Needs::Nothing),
            (None, Destination::Queue) => ("".into(), None, Needs::Nothing),
            (None, Destination::DeadLetters(name)) => (dead_letter_exchange(name).into(), None, Needs::Nothing),
        };
        Ok(Frame {
            exchange: short(&to, "exchange")?,
            to,
            routing_key: short(&self.routing_key, "routing_key")?,
            properties: properties(&self.id, self.timestamp, &self.headers, steering.as_ref(), self.extra.as_deref())?,
            needs,
            tells_route,
        })
    }

    /// Makes room where a foreign event brought more headers than fit a frame together with ours: its longest texts are
    /// cut, with a mark.
    pub(super) fn fit(&mut self) {
        while self.headers.size() > MAX_FRAME_HEADERS {
            let longest = self.headers.iter().max_by_key(|(_, value)| match value {
                crate::HeaderValue::Text(text) => text.len(),
                crate::HeaderValue::Bytes(bytes) => bytes.len(),
                _ => usize::from(!matches!(value, crate::HeaderValue::Null)),
            });
            let Some((name, value)) = longest.map(|(name, value)| (Arc::<str>::from(name), value.clone())) else {
                return;
            };
            match value.as_str().filter(|text| text.len() > 1024) {
                Some(text) => self.headers.set(name, crate::error::shorten(text, 1024)),
                None => {
                    self.headers.remove(&name);
                }
            }
        }
    }
}

fn steer_to(subscription: &str) -> FieldTable {
    arguments([(name::TO, text(to_queue(subscription)))])
}

/// What came of a message: whether the broker found a queue for it, where that says something.
pub(super) type Outcome = Result<Option<bool>>;

/// Messages whose outcomes are awaited together.
#[derive(Default)]
pub(super) struct Batch {
    state: Mutex<State>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct State {
    outcomes: Vec<Option<Outcome>>,
    open: usize,
}

impl Batch {
    /// A batch with room for `len` outcomes.
    pub(super) fn new(len: usize) -> Arc<Self> {
        let outcomes = std::iter::repeat_with(|| None).take(len).collect();
        Arc::new(Self { state: Mutex::new(State { outcomes, open: len }), waker: AtomicWaker::new() })
    }

    /// What finishes the `index`-th.
    pub(super) fn reply(self: &Arc<Self>, index: usize) -> Reply {
        Reply { batch: Some(self.clone()), index }
    }

    fn finish(&self, index: usize, outcome: Outcome) {
        let mut state = self.state.lock();
        if let Some(slot @ None) = state.outcomes.get_mut(index) {
            *slot = Some(outcome);
            state.open -= 1;
            if state.open == 0 {
                drop(state);
                self.waker.wake();
            }
        }
    }

    /// Waits for all of them.
    pub(super) async fn outcomes(&self) -> Vec<Outcome> {
        std::future::poll_fn(|cx| self.poll_outcomes(Some(cx.waker()))).await
    }

    /// The outcomes once all of them are there; `waker` is told then.
    pub(super) fn poll_outcomes(&self, waker: Option<&Waker>) -> Poll<Vec<Outcome>> {
        if let Some(waker) = waker {
            self.waker.register(waker);
        }
        let mut state = self.state.lock();
        if state.open > 0 {
            return Poll::Pending;
        }
        let outcomes = std::mem::take(&mut state.outcomes).into_iter();
        Poll::Ready(
            outcomes
                .map(|outcome| {
                    outcome.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "a publish has no outcome")))
                })
                .collect(),
        )
    }
}

/// The one who waits for a message. Dropped without an outcome, it says that the transport was closed.
pub(super) struct Reply {
    batch: Option<Arc<Batch>>,
    index: usize,
}

impl Reply {
    /// Hands over the outcome; the first one counts.
    pub(super) fn finish(&mut self, outcome: Outcome) {
        if let Some(batch) = self.batch.take() {
            batch.finish(self.index, outcome);
        }
    }

    /// Whether the outcome was handed over.
    pub(super) fn finished(&self) -> bool {
        self.batch.is_none()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.batch.is_some() {
            self.finish(Err(super::error::closed().with_unknown_outcome()));
        }
    }
}
