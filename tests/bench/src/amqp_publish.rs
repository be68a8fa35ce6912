//! Confirmed publish with 1,000 in flight, to one queue: Tidings beside lapin used in three ways.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tidings::Broker;

use crate::amqp::{ByHand, EXCHANGE, Sent, Server, WINDOW, confirmed};
use crate::event;
use crate::measure::{BoxError, Contender, Sample, Watch, alternate};
use crate::options::Options;
use crate::results::Results;

/// Events handed over at once where batches are.
const BATCH: usize = 100;

struct Setting<'a> {
    server: &'a Server,
    queue: String,
    events: usize,
    admin: ByHand,
}

/// Measures.
pub(crate) async fn run(
    options: &Options,
    results: &mut Results,
    server: &Server,
    classic: bool,
) -> Result<(), BoxError> {
    let kind = if classic { "classic" } else { "quorum" };
    let admin = ByHand::connect(&server.url).await?;
    let queue = format!("bench-publish-{}", std::process::id());
    admin.declare(&queue, classic).await?;
    let events = options.events(if classic { 20_000.0 } else { 30_000.0 });
    let setting = Setting { server, queue, events, admin };
    compare(options, results, &setting, &format!("{} publish {kind}, 1000 in flight", server.name)).await?;
    setting.admin.remove(&setting.queue).await?;
    setting.admin.close().await
}

async fn compare(options: &Options, results: &mut Results, setting: &Setting<'_>, work: &str) -> Result<(), BoxError> {
    let mut contenders = vec![
        Contender::new("tidings, publish × 1000", true, || ours(setting)),
        Contender::new("tidings, publish_batch of 100 × 10", true, || ours_in_batches(setting)),
        Contender::new("lapin, same message, 1000 concurrent", false, || lapin_concurrent(setting, Sent::Same)),
        Contender::new("lapin, same message, batches of 1000", false, || batches(setting, Sent::Same)),
        Contender::new("lapin, 1000 concurrent", false, || lapin_concurrent(setting, Sent::Bare)),
        Contender::new("lapin, sliding window", false, || sliding(setting)),
        Contender::new("lapin, batches of 1000", false, || batches(setting, Sent::Bare)),
    ];
    alternate(options, &mut contenders).await?;
    results.compare(work, &contenders, Some(0.95));
    contenders.retain(|contender| contender.ours || contender.name.contains("same message"));
    results.compare(&format!("{work}, same message"), &contenders, Some(0.95));
    Ok(())
}

impl Setting<'_> {
    fn watch(&self) -> Watch<'_> {
        Watch::start(self.server.pid.as_deref())
    }
}

async fn ours(s: &Setting<'_>) -> Result<Sample, BoxError> {
    s.admin.purge(&s.queue).await?;
    let broker = Broker::connect(&s.server.url).await?;
    let publisher = broker.publisher().exchange(EXCHANGE)?;
    publisher.publish(event::ours(0)?).await?;
    let watch = s.watch();
    stream::iter(0..s.events)
        .map(|n| async move { event::ours(n) })
        .buffered(1)
        .map_ok(|event| publisher.publish(event))
        .try_buffer_unordered(WINDOW)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let sample = watch.stop(s.events);
    broker.close().await?;
    Ok(sample)
}

async fn ours_in_batches(s: &Setting<'_>) -> Result<Sample, BoxError> {
    s.admin.purge(&s.queue).await?;
    let broker = Broker::connect(&s.server.url).await?;
    let publisher = broker.publisher().exchange(EXCHANGE)?;
    publisher.publish(event::ours(0)?).await?;
    let watch = s.watch();
    stream::iter(0..s.events / BATCH)
        .map(|i| {
            let publisher = &publisher;
            async move {
                let events = (i * BATCH..(i + 1) * BATCH).map(event::ours).collect::<Result<Vec<_>, _>>()?;
                publisher.publish_batch(events).await.into_iter().try_for_each(|result| result.map(drop))
            }
        })
        .buffer_unordered(WINDOW / BATCH)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    let sample = watch.stop(s.events / BATCH * BATCH);
    broker.close().await?;
    Ok(sample)
}

async fn lapin_concurrent(s: &Setting<'_>, sent: Sent) -> Result<Sample, BoxError> {
    s.admin.purge(&s.queue).await?;
    concurrent(s.server, s.events, sent).await
}

/// lapin with 1,000 publishes at once, to whatever is bound.
pub(crate) async fn concurrent(server: &Server, events: usize, sent: Sent) -> Result<Sample, BoxError> {
    let by_hand = ByHand::confirming(&server.url).await?;
    by_hand.publish(1).await?;
    let watch = Watch::start(server.pid.as_deref());
    stream::iter(0..events)
        .map(|n| {
            let by_hand = &by_hand;
            async move { confirmed(by_hand.send_as(sent, n).await?).await }
        })
        .buffer_unordered(WINDOW)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    let sample = watch.stop(events);
    by_hand.close().await?;
    Ok(sample)
}

async fn sliding(s: &Setting<'_>) -> Result<Sample, BoxError> {
    s.admin.purge(&s.queue).await?;
    let by_hand = ByHand::confirming(&s.server.url).await?;
    by_hand.publish(1).await?;
    let watch = s.watch();
    by_hand.publish(s.events).await?;
    let sample = watch.stop(s.events);
    by_hand.close().await?;
    Ok(sample)
}

async fn batches(s: &Setting<'_>, sent: Sent) -> Result<Sample, BoxError> {
    s.admin.purge(&s.queue).await?;
    let by_hand = ByHand::confirming(&s.server.url).await?;
    by_hand.publish(1).await?;
    let watch = s.watch();
    for batch in 0..s.events / WINDOW {
        let sending = stream::iter(batch * WINDOW..(batch + 1) * WINDOW).map(|n| by_hand.send_as(sent, n));
        let sent: Vec<_> = sending.buffered(WINDOW).try_collect().await?;
        for confirm in sent {
            confirmed(confirm).await?;
        }
    }
    let sample = watch.stop((s.events / WINDOW * WINDOW).max(1));
    by_hand.close().await?;
    Ok(sample)
}
