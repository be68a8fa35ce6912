//! The one member that divides a subscription: it consumes `<name>` and passes each event on to the partition of its key.
//!
//! It publishes in the order of the deliveries, on the connection that it consumes with, and acks what is confirmed. When it
//! dies, what was not acked comes to the next one from the oldest event on, so a key's events reach its partition without
//! gaps, and only duplicates come late.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::super::connection::{Live, answer_in_time};
use super::super::outbound::{Batch, Outcome};
use super::super::unsettled::Unsettled;
use super::super::window::Window;
use super::consumer::{Deliveries, Kept, leave};
use super::declaring::{On, owned};
use super::event::{Event, Item};
use super::owner::{Ended, confirmed, gone, lost};
use super::shared::{Shared, Wish};
use super::{layout, names};
use crate::Result;

/// The numbers of its consumers.
const EVENTS: u64 = 0;
const PROCESSES: u64 = 1;
/// Events that are on their way to the partitions at a time.
const PREFETCH: u16 = 256;
/// How often confirms that came out of order are looked for, while some are awaited.
const TICK: Duration = Duration::from_millis(10);
/// Time for what is on its way, before the channel is closed.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Stands by until it receives an event, and splits from then on.
pub(super) async fn stand_by(
    shared: &Arc<Shared>,
    kept: &Arc<Kept>,
    wish: &mut watch::Receiver<Wish>,
) -> Result<Ended> {
    let live = kept.live();
    let channel = live.channel().await?;
    answer_in_time(channel.confirm_select(ConfirmSelectOptions::default()), "confirm mode").await?;
    // In this order: whoever changes the number of partitions has the queue before it looks who takes part.
    let _takes_part = Deliveries::open(&channel, kept, &names::processes(&shared.name), PROCESSES, 1, false).await?;
    let mut events = Deliveries::open(&channel, kept, &shared.queue, EVENTS, PREFETCH, false).await?;
    {
        let mut standing = shared.standing.lock();
        (standing.connected, standing.joined) = (true, true);
    }
    let first = loop {
        let now = *wish.borrow_and_update();
        if let Some(ended) = ended(shared, now) {
            return Ok(ended);
        }
        tokio::select! {
            item = events.next() => break item,
            changed = wish.changed() => if changed.is_err() { return Ok(Ended::LetGo) },
            () = tokio::time::sleep(shared.spec.max_hold / 4) => {}
        }
    };
    // Whoever has changed the number of partitions had the queue before. While it is ours nobody else does.
    layout::assert(On::Live(live), &shared.spec).await?;
    owned(On::Live(live), shared).await?;
    tracing::info!(subscription = %shared.name, partitions = shared.spec.partitions, "splits the ordered subscription");
    let mut splitter = Splitter {
        shared,
        live,
        window: Window::new(channel.clone(), Arc::new(Semaphore::new(0))),
        channel,
        unsettled: Unsettled::new(),
        under_way: FuturesUnordered::new(),
    };
    splitter.pass_on(first, &mut events)?;
    let ended = splitter.run(&mut events, wish).await?;
    splitter.finish().await?;
    leave(&splitter.channel, splitter.unsettled.acked_many()).await;
    Ok(ended)
}

/// Whether the session wants nothing more, or nobody asks for events.
fn ended(shared: &Shared, wish: Wish) -> Option<Ended> {
    if wish.closed || wish.stopped {
        return Some(Ended::LetGo);
    }
    let unasked = shared.asked.lock().elapsed() >= shared.spec.max_hold / 2;
    (!wish.flows || unasked).then_some(Ended::NobodyAsks)
}

struct Splitter<'a> {
    shared: &'a Arc<Shared>,
    live: &'a Arc<Live>,
    channel: Channel,
    window: Window,
    unsettled: Unsettled<()>,
    /// The deliveries of each batch, and what came of them.
    under_way: FuturesUnordered<BoxFuture<'static, (Vec<u64>, Vec<Outcome>)>>,
}

type Arrived = Option<(u64, lapin::Result<Delivery>)>;

impl Splitter<'_> {
    async fn run(&mut self, events: &mut Deliveries, wish: &mut watch::Receiver<Wish>) -> Result<Ended> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = *wish.borrow_and_update();
            if let Some(ended) = ended(self.shared, now) {
                return Ok(ended);
            }
            let (window, under_way) = (&mut self.window, &mut self.under_way);
            let unconfirmed = window.len() > 0;
            tokio::select! {
                item = events.next() => self.pass_on(item, events)?,
                Some((tags, outcomes)) = under_way.next(), if !under_way.is_empty() => self.passed(&tags, &outcomes)?,
                confirms = std::future::poll_fn(|cx| window.poll_oldest(cx)), if unconfirmed => {
                    confirms.map_err(|e| lost(&e))?;
                }
                changed = wish.changed() => if changed.is_err() { return Ok(Ended::LetGo) },
                _ = tick.tick(), if unconfirmed => {
                    self.window.sweep();
                    if self.window.ended() {
                        return Err(gone("its channel was closed"));
                    }
                }
                () = tokio::time::sleep(self.shared.spec.max_hold / 4), if !unconfirmed => {}
            }
        }
    }

    /// Publishes a delivery, and all that have come with it.
    fn pass_on(&mut self, first: Arrived, events: &mut Deliveries) -> Result<()> {
        let mut arrived = vec![first];
        while arrived.len() < PREFETCH.into() {
            let Some(item) = events.next().now_or_never() else { break };
            arrived.push(item);
        }
        let mut passed = Vec::with_capacity(arrived.len());
        for item in arrived {
            let (_, delivery) = item.ok_or_else(|| gone("the broker cancelled its consumer"))?;
            let delivery = delivery.map_err(|e| lost(&e))?;
            let tag = delivery.delivery_tag;
            self.unsettled.push(tag, ());
            match Event::read(delivery, &self.shared.exchange, &self.shared.name) {
                Item::Event(event) => passed.push(event),
                Item::Marker(_, tag) => {
                    self.unsettled.ack(&self.channel, &[tag]);
                }
            }
        }
        self.publish(&passed)
    }

    fn publish(&mut self, events: &[Event]) -> Result<()> {
        let batch = Batch::new(events.len());
        for (at, event) in events.iter().enumerate() {
            let key = event.message.key.as_deref().unwrap_or(&event.message.id);
            let queue = names::partition(&self.shared.name, names::partition_of(key, self.shared.spec.partitions));
            let out = event.outbound(&queue, batch.reply(at));
            // Where one cannot be sent nothing behind it may be: the tenure ends, and all of it comes again.
            let frame = out.frame(self.live.frame_max())?;
            self.window.send(out, frame).map_err(|e| lost(&e))?;
        }
        let tags = events.iter().map(|event| event.tag).collect();
        self.under_way.push(async move { (tags, batch.outcomes().await) }.boxed());
        Ok(())
    }

    /// The partitions have these events: they are done with here.
    fn passed(&mut self, tags: &[u64], outcomes: &[Outcome]) -> Result<()> {
        confirmed(outcomes)?;
        if self.unsettled.ack(&self.channel, tags) { Ok(()) } else { Err(gone("its channel was closed")) }
    }

    /// Waits for what is on its way.
    async fn finish(&mut self) -> Result<()> {
        let deadline = Instant::now() + FINISH_WITHIN;
        let mut tick = tokio::time::interval(TICK);
        while !self.under_way.is_empty() {
            tokio::select! {
                Some((tags, outcomes)) = self.under_way.next() => self.passed(&tags, &outcomes)?,
                _ = tick.tick() => { self.window.sweep(); }
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        Ok(())
    }
}
