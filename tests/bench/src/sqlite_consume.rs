//! Consuming from a file beside plain rusqlite that claims, decodes and removes the same rows, 100 a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tidings::DomainEvent;
use tokio::sync::Notify;

use crate::amqp::EXCHANGE;
use crate::event::Payload;
use crate::measure::{BoxError, Contender, Sample, Watch, alternate};
use crate::options::Options;
use crate::results::Results;
use crate::sqlite_peer::Peer;
use crate::sqlite_publish::{fresh, publish_batches};

const BATCH: usize = 100;

/// Measures, at `synchronous=FULL` (the default) and `NORMAL`.
pub(crate) async fn run(options: &Options, results: &mut Results) -> Result<(), BoxError> {
    for synchronous in ["FULL", "NORMAL"] {
        let events = options.events(40_000.0) / BATCH * BATCH;
        let mut contenders = vec![
            Contender::new("tidings, 1 handler, prefetch 1000", true, || ours(synchronous, events)),
            Contender::new("rusqlite, claim and delete 100", false, || peer(synchronous, events)),
        ];
        alternate(options, &mut contenders).await?;
        results.compare(&format!("sqlite consume, {synchronous}"), &contenders, None);
    }
    Ok(())
}

pub(crate) async fn ours(synchronous: &str, events: usize) -> Result<Sample, BoxError> {
    let (_folder, broker) = fresh(synchronous).await?;
    publish_batches(&broker.publisher().exchange(EXCHANGE)?, events).await?;
    let (count, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let done = last.clone();
    let subscriber = broker.subscriber();
    subscriber.subscription("bench").exchange(EXCHANGE).bind("#").prefetch(1000).handle(
        move |event: DomainEvent| {
            let (count, done) = (count.clone(), done.clone());
            async move {
                std::hint::black_box(event.data::<Payload>()?.user_id);
                if count.fetch_add(1, Relaxed) + 1 == events {
                    done.notify_one();
                }
                Ok::<(), tidings::Error>(())
            }
        },
    )?;
    let watch = Watch::start(None);
    let running = subscriber.start().await?;
    last.notified().await;
    // The last ones are removed before it stops: the peer's are, too.
    running.stop().await?;
    let sample = watch.stop(events);
    broker.close().await?;
    Ok(sample)
}

pub(crate) async fn peer(synchronous: &str, events: usize) -> Result<Sample, BoxError> {
    let synchronous = synchronous.to_owned();
    tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir()?;
        let mut peer = Peer::open(&folder.path().join("peer.db"), &synchronous)?;
        for _ in 0..events / BATCH {
            peer.publish(BATCH)?;
        }
        let watch = Watch::start(None);
        while peer.consume(BATCH)? > 0 {}
        Ok(watch.stop(events))
    })
    .await?
}
