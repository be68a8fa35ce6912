//! One publish inside lapin, from its frames to its confirm, in memory that is used again.
//!
//! lapin's future of a publish takes kilobytes. A thousand of them in flight would have the allocator busy for longer than
//! anything else here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};

use super::outbound::Frame;
use crate::event::Payload;

/// Always `mandatory`: a return is how the broker says that no queue took it.
const OPTIONS: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };

/// What the server said of a message.
pub(super) struct Answer {
    pub(super) acked: bool,
    /// A message that came back before the confirm: this one or another one.
    pub(super) returned: Option<Box<BasicReturnMessage>>,
}

impl From<Confirmation> for Answer {
    fn from(confirmation: Confirmation) -> Self {
        Self { acked: !confirmation.is_nack(), returned: confirmation.take_message().map(Box::new) }
    }
}

/// A place for one publish at a time.
pub(super) trait Lane: Send {
    /// Begins a publish. The one before it must be over.
    fn start(&mut self, body: Payload, frame: Frame);

    /// Goes on with it: the first call puts the frames into lapin's queue. Not to be called again once it is ready.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<lapin::Result<Answer>>;
}

/// A new lane of this channel.
pub(super) fn lane(channel: Arc<Channel>) -> Box<dyn Lane> {
    let begin = move |body: Payload, frame: Frame| {
        let channel = channel.clone();
        async move {
            let Frame { exchange, routing_key, properties, .. } = frame;
            let sent = channel.basic_publish(exchange, routing_key, OPTIONS, &body, properties).await?;
            sent.await.map(Answer::from)
        }
    };
    Box::new(Reused { begin, publish: Box::pin(None) })
}

struct Reused<B, P> {
    begin: B,
    publish: Pin<Box<Option<P>>>,
}

impl<B, P> Lane for Reused<B, P>
where
    B: Fn(Payload, Frame) -> P + Send,
    P: Future<Output = lapin::Result<Answer>> + Send,
{
    fn start(&mut self, body: Payload, frame: Frame) {
        self.publish.set(Some((self.begin)(body, frame)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<lapin::Result<Answer>> {
        match self.publish.as_mut().as_pin_mut() {
            Some(publish) => publish.poll(cx),
            None => Poll::Pending,
        }
    }
}
