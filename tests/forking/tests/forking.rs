//! A process forks with brokers open: nothing is lost, nothing hangs, and handles of the parent are refused.
//!
//! One after the other in the main thread: a fork copies no other.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tidings::{Broker, Deliveries, DomainEvent, Outcome};
use tidings_forking::{Hooks, fork};
use tokio::runtime::{Builder, Runtime};

type Anything<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const PATIENCE: Duration = Duration::from_secs(30);
/// Events that each side publishes.
const EVENTS: u32 = 200;
const FORKS: u32 = 12;

fn main() -> Anything {
    for (name, test) in [
        ("parent and child share a file", parent_and_child as fn(&Path) -> Anything),
        ("forks among publishes lose nothing", forks_among_publishes),
        ("an inherited handle is refused", inherited_handles),
        ("a fork that bypasses the hooks refuses the file", bypassed),
        ("a child of a child", grandchild),
    ] {
        let folder = tempfile::tempdir()?;
        test(&folder.path().join("events.db")).map_err(|error| format!("{name}: {error}"))?;
        println!("test {name} ... ok");
    }
    Ok(())
}

#[allow(clippy::expect_used, reason = "a test without a runtime has nothing to say")]
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn ensure(holds: bool, what: impl Into<String>) -> Anything {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

/// Runs `work` in a child, in a runtime of its own.
fn in_child<F, Fut>(hooks: Hooks, work: F) -> Anything<tidings_forking::Child>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Anything>,
{
    Ok(fork(hooks, || match runtime().block_on(async { tokio::time::timeout(PATIENCE, work()).await }) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            eprintln!("in the child: {error}");
            1
        }
        Err(_) => {
            eprintln!("in the child: not done in time");
            2
        }
    })?)
}

fn well(child: tidings_forking::Child) -> Anything {
    let code = child.wait()?;
    ensure(code == Some(0), format!("the child ended with {code:?}"))
}

async fn publish(broker: &Broker, routing_key: &str, count: u32) -> Anything<BTreeSet<String>> {
    let publisher = broker.publisher();
    let mut ids = BTreeSet::new();
    for n in 0..count {
        ids.insert(publisher.publish(DomainEvent::new(routing_key, &n)?).await?.id.to_string());
    }
    Ok(ids)
}

/// Takes and acknowledges until `done` says that it was enough; the ids and routing keys.
async fn take(
    deliveries: &Deliveries,
    mut done: impl FnMut(&BTreeSet<(String, String)>) -> bool,
) -> Anything<BTreeSet<(String, String)>> {
    let mut seen = BTreeSet::new();
    while !done(&seen) {
        let batch = tokio::time::timeout(PATIENCE, deliveries.next(64)).await.map_err(|_| "events are missing")??;
        for delivery in &batch {
            let event = delivery.event();
            let new = seen.insert((event.routing_key().to_owned(), event.id().to_owned()));
            ensure(new, format!("{} came twice", event.id()))?;
        }
        deliveries.settle(batch.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await?;
    }
    Ok(seen)
}

fn of(seen: &BTreeSet<(String, String)>, routing_key: &str) -> BTreeSet<String> {
    seen.iter().filter(|(key, _)| key == routing_key).map(|(_, id)| id.clone()).collect()
}

fn check_file(path: &Path) -> Anything {
    let conn = rusqlite::Connection::open(path)?;
    let answer: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure(answer == "ok", answer)
}

/// Both publish and both consume after the fork; each sees all events of the other.
fn parent_and_child(path: &Path) -> Anything {
    let runtime = runtime();
    let (broker, deliveries) = runtime.block_on(async {
        let broker = Broker::connect(&url(path)).await?;
        let deliveries = broker.subscriber().subscription("parent").bind("#").deliveries().await?;
        broker.subscriber().subscription("child").bind("#").deliveries().await?.close(PATIENCE).await?;
        publish(&broker, "before.fork", EVENTS).await?;
        Anything::Ok((broker, deliveries))
    })?;
    let child = in_child(Hooks::Called, || async {
        let broker = Broker::connect(&url(path)).await?;
        let deliveries = broker.subscriber().subscription("child").bind("#").deliveries().await?;
        let ours = publish(&broker, "from.child", EVENTS).await?;
        let all = |seen: &BTreeSet<_>| seen.len() >= 3 * EVENTS as usize;
        let seen = take(&deliveries, all).await?;
        ensure(of(&seen, "from.child") == ours, "the child does not see its own events")?;
        ensure(of(&seen, "from.parent").len() == EVENTS as usize, "the child does not see the parent's events")?;
        deliveries.close(PATIENCE).await?;
        Ok(broker.close().await?)
    })?;
    runtime.block_on(async {
        let ours = publish(&broker, "from.parent", EVENTS).await?;
        let seen = take(&deliveries, |seen| seen.len() >= 3 * EVENTS as usize).await?;
        ensure(of(&seen, "from.parent") == ours, "the parent does not see its own events")?;
        ensure(of(&seen, "from.child").len() == EVENTS as usize, "the parent does not see the child's events")
    })?;
    well(child)?;
    runtime.block_on(async {
        let left = broker.subscriptions().await?;
        ensure(left.iter().all(|s| s.ready == 0 && s.in_flight == Some(0)), format!("something is left: {left:?}"))?;
        deliveries.close(PATIENCE).await?;
        Anything::Ok(broker.close().await?)
    })?;
    check_file(path)
}

/// Publishes, claims and acks are under way in the parent all the time while it forks again and again.
fn forks_among_publishes(path: &Path) -> Anything {
    let runtime = runtime();
    let stop = Arc::new(AtomicBool::new(false));
    let broker = runtime.block_on(Broker::connect(&url(path)))?;
    let deliveries = Arc::new(
        runtime
            .block_on(async { broker.subscriber().subscription("all").bind("#").prefetch(256).deliveries().await })?,
    );
    let publishing: Vec<_> = (0..4)
        .map(|_| {
            let (broker, stop) = (broker.clone(), stop.clone());
            runtime.spawn(async move {
                let mut ids = BTreeSet::new();
                while !stop.load(Relaxed) {
                    ids.extend(publish(&broker, "from.parent", 10).await?);
                }
                Anything::Ok(ids)
            })
        })
        .collect();
    let mut children = Vec::new();
    for n in 0..FORKS {
        children.push(in_child(Hooks::Called, || async move {
            let broker = Broker::connect(&url(path)).await?;
            publish(&broker, &format!("from.child{n}"), 20).await?;
            Ok(broker.close().await?)
        })?);
    }
    for child in children {
        well(child)?;
    }
    stop.store(true, Relaxed);
    runtime.block_on(async {
        let mut ours = BTreeSet::new();
        for task in publishing {
            ours.extend(task.await??);
        }
        let expected = ours.len() + 20 * FORKS as usize;
        let seen = take(&deliveries, |seen| seen.len() >= expected).await?;
        ensure(of(&seen, "from.parent") == ours, "the parent's events are others")?;
        for n in 0..FORKS {
            let count = of(&seen, &format!("from.child{n}")).len();
            ensure(count == 20, format!("{count} events of child {n}"))?;
        }
        deliveries.close(PATIENCE).await?;
        Anything::Ok(broker.close().await?)
    })?;
    check_file(path)
}

/// Whatever the child does with the parent's handles is answered at once, and dropping them hangs nothing.
fn inherited_handles(path: &Path) -> Anything {
    for url in [url(path), "memory:".to_owned()] {
        let runtime = runtime();
        let (broker, deliveries, running) = runtime.block_on(async {
            let broker = Broker::connect(&url).await?;
            let deliveries = broker.subscriber().subscription("one").bind("#").deliveries().await?;
            let subscriber = broker.subscriber();
            subscriber.subscription("two").bind("#").handle(|_| async { Anything::Ok(()) })?;
            let running = subscriber.start().await?;
            publish(&broker, "a.b", 3).await?;
            Anything::Ok((broker, deliveries, running))
        })?;
        let in_hand = runtime.block_on(deliveries.next(1))?;
        let held = (broker.clone(), deliveries, running, in_hand);
        let child = in_child(Hooks::Called, || async {
            let (broker, deliveries, running, in_hand) = held;
            let event = || DomainEvent::new("a.b", &1);
            let refused = [
                broker.publisher().publish(event()?).await.map(drop),
                broker.publisher().publish_batch([event()?]).await.remove(0).map(drop),
                broker.publisher().flush().await,
                broker.ping().await,
                broker.subscriptions().await.map(drop),
                broker.replay("one").run().await.map(drop),
                deliveries.next(1).await.map(drop),
                deliveries.settle(in_hand.into_iter().map(|delivery| (delivery, Outcome::Ok)).collect()).await,
                deliveries.close(PATIENCE).await.map(drop),
                running.stop().await.map(drop),
                broker.close().await,
            ];
            for (n, result) in refused.into_iter().enumerate() {
                let code = result.err().map(|error| error.code());
                ensure(code == Some("FORKED_CLIENT"), format!("call {n}: {code:?}"))?;
            }
            let health = deliveries.health();
            ensure(!health.connected && health.last_error.is_some(), format!("{health:?}"))?;
            drop((deliveries, running));
            Ok(())
        })?;
        well(child)?;
        runtime.block_on(broker.ping())?;
    }
    Ok(())
}

/// SQLite's locks were copied with the process: the child must not open the file, and may open another one.
fn bypassed(path: &Path) -> Anything {
    let runtime = runtime();
    let broker = runtime.block_on(Broker::connect(&url(path)))?;
    let child = in_child(Hooks::Bypassed, || async {
        let code = Broker::connect(&url(path)).await.err().map(|error| error.code());
        ensure(code == Some("FORKED_CLIENT"), format!("{code:?}"))?;
        let code = broker.ping().await.err().map(|error| error.code());
        ensure(code == Some("FORKED_CLIENT"), format!("{code:?}"))?;
        let other = Broker::connect(&url(&path.with_extension("other"))).await?;
        publish(&other, "a.b", 3).await?;
        Ok(other.close().await?)
    })?;
    well(child)?;
    runtime.block_on(async {
        publish(&broker, "a.b", 3).await?;
        Anything::Ok(broker.close().await?)
    })?;
    check_file(path)
}

/// A child that has connected forks itself, and so does its child.
fn grandchild(path: &Path) -> Anything {
    fn generation(path: &Path, left: u32) -> Anything {
        let runtime = runtime();
        let broker = runtime.block_on(Broker::connect(&url(path)))?;
        runtime.block_on(publish(&broker, "a.b", 5))?;
        if left > 0 {
            let child = fork(Hooks::Called, || {
                generation(path, left - 1).map_or_else(
                    |error| {
                        eprintln!("generation {left}: {error}");
                        1
                    },
                    |()| 0,
                )
            })?;
            runtime.block_on(publish(&broker, "a.b", 5))?;
            well(child)?;
        }
        Ok(runtime.block_on(broker.close())?)
    }
    let runtime = runtime();
    let broker = runtime.block_on(Broker::connect(&url(path)))?;
    let deliveries =
        runtime.block_on(async { broker.subscriber().subscription("all").bind("#").deliveries().await })?;
    let child = fork(Hooks::Called, || i32::from(generation(path, 2).is_err()))?;
    well(child)?;
    runtime.block_on(async {
        let seen = take(&deliveries, |seen| seen.len() >= 25).await?;
        ensure(seen.len() == 25, format!("{} events", seen.len()))?;
        deliveries.close(PATIENCE).await?;
        Anything::Ok(broker.close().await?)
    })?;
    check_file(path)
}
