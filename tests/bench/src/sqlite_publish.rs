//! Publishing to a file: one at a time, in batches of 100, and 1,000 at once, beside plain rusqlite writing the same rows.

use futures_util::stream::{self, TryStreamExt as _};
use tempfile::TempDir;
use tidings::{Broker, Publisher};

use crate::amqp::{EXCHANGE, WINDOW};
use crate::event;
use crate::measure::{BoxError, Contender, Sample, Watch, alternate};
use crate::options::Options;
use crate::results::Results;
use crate::sqlite_peer::Peer;

const BATCH: usize = 100;

/// Measures, at `synchronous=FULL` (the default) and `NORMAL`.
pub(crate) async fn run(options: &Options, results: &mut Results) -> Result<(), BoxError> {
    for synchronous in ["FULL", "NORMAL"] {
        let full = synchronous == "FULL";
        let events = options.events(if full { 5_000.0 } else { 25_000.0 });
        let mut contenders = vec![
            Contender::new("tidings, publish, one at a time", true, || ours(synchronous, events, 1)),
            Contender::new("rusqlite, 1 per transaction", false, || peer(synchronous, events, 1)),
        ];
        alternate(options, &mut contenders).await?;
        results.compare(&format!("sqlite publish single, {synchronous}"), &contenders, None);

        let events = options.events(80_000.0);
        let mut contenders = vec![
            Contender::new("tidings, publish_batch of 100", true, || in_batches(synchronous, events)),
            Contender::new("rusqlite, 100 per transaction", false, || peer(synchronous, events, BATCH)),
        ];
        alternate(options, &mut contenders).await?;
        results.compare(&format!("sqlite publish batches of 100, {synchronous}"), &contenders, None);

        let mut contenders = vec![
            Contender::new("tidings, publish × 1000", true, || ours(synchronous, events, WINDOW)),
            Contender::new("rusqlite, 1000 per transaction", false, || peer(synchronous, events, WINDOW)),
        ];
        alternate(options, &mut contenders).await?;
        results.compare(&format!("sqlite publish 1000 in flight, {synchronous}"), &contenders, None);
    }
    Ok(())
}

/// A fresh file with one subscription that wants everything.
pub(crate) async fn fresh(synchronous: &str) -> Result<(TempDir, Broker), BoxError> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("events.db");
    let broker =
        Broker::connect(&format!("sqlite:{}?synchronous={}", path.display(), synchronous.to_lowercase())).await?;
    let subscriber = broker.subscriber();
    subscriber.subscription("bench").exchange(EXCHANGE).bind("#").handle(|_| async { Ok::<(), tidings::Error>(()) })?;
    subscriber.start().await?.stop().await?;
    Ok((folder, broker))
}

pub(crate) async fn ours(synchronous: &str, events: usize, in_flight: usize) -> Result<Sample, BoxError> {
    let (_folder, broker) = fresh(synchronous).await?;
    let publisher = broker.publisher().exchange(EXCHANGE)?;
    publisher.publish(event::ours(0)?).await?;
    let watch = Watch::start(None);
    if in_flight == 1 {
        for n in 0..events {
            publisher.publish(event::ours(n)?).await?;
        }
    } else {
        stream::iter((0..events).map(event::ours))
            .map_ok(|event| publisher.publish(event))
            .try_buffer_unordered(in_flight)
            .try_for_each(|_| async { Ok(()) })
            .await?;
    }
    let sample = watch.stop(events);
    broker.close().await?;
    Ok(sample)
}

pub(crate) async fn in_batches(synchronous: &str, events: usize) -> Result<Sample, BoxError> {
    let (_folder, broker) = fresh(synchronous).await?;
    let publisher = broker.publisher().exchange(EXCHANGE)?;
    let watch = Watch::start(None);
    publish_batches(&publisher, events).await?;
    let sample = watch.stop(events / BATCH * BATCH);
    broker.close().await?;
    Ok(sample)
}

/// Publishes about so many events in batches.
pub(crate) async fn publish_batches(publisher: &Publisher, events: usize) -> Result<(), BoxError> {
    for batch in 0..events / BATCH {
        let events = (batch * BATCH..(batch + 1) * BATCH).map(event::ours).collect::<Result<Vec<_>, _>>()?;
        publisher.publish_batch(events).await.into_iter().try_for_each(|result| result.map(drop))?;
    }
    Ok(())
}

pub(crate) async fn peer(synchronous: &str, events: usize, size: usize) -> Result<Sample, BoxError> {
    let synchronous = synchronous.to_owned();
    tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir()?;
        let mut peer = Peer::open(&folder.path().join("peer.db"), &synchronous)?;
        let watch = Watch::start(None);
        for _ in 0..events / size {
            peer.publish(size)?;
        }
        Ok(watch.stop((events / size * size).max(1)))
    })
    .await?
}
