//! What the engine does around handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::settlement::reason;
use crate::testkit::scenario::Done;
use crate::testkit::world::{World, metric, sorted};
use crate::{BoxError, DomainEvent, Middleware, Next, Outcome};

/// A handler that takes too long is ended; its event is a failure of type `Timeout`, the next ones are handled.
pub(super) async fn timeout(w: Arc<World>) -> Done {
    let (name, seen) = (w.name("t"), w.seen());
    let subscriber = w.broker.subscriber();
    let handler = {
        let seen = seen.clone();
        move |event: DomainEvent| {
            let number = seen.note(&event);
            async move {
                if number == 0 {
                    std::future::pending::<()>().await;
                }
                Ok::<(), BoxError>(())
            }
        }
    };
    w.subscribe(&subscriber, &name, "a").timeout(w.units(1)).handle(handler)?;
    let running = subscriber.start().await?;
    for n in 0..3 {
        w.publish("a", n).await?;
    }
    same!(sorted(seen.wait(3).await?), [0, 1, 2], "events");
    let dead = w.wait_dead(&name, 1).await?.remove(0);
    same!((dead.reason(), dead.error_type()), (reason::TIMEOUT, Some("Timeout")), "reason and type");
    running.stop().await?;
    Ok(())
}

/// A panic is the failure of one event.
pub(super) async fn panics(w: Arc<World>) -> Done {
    let (name, seen) = (w.name("p"), w.seen());
    let subscriber = w.broker.subscriber();
    let handler = {
        let seen = seen.clone();
        move |event: DomainEvent| {
            let number = seen.note(&event);
            async move {
                if number % 2 == 0 {
                    // Without the hook's output, which would look like a defect of the suite.
                    std::panic::resume_unwind(Box::new(format!("number {number}")));
                }
                Ok::<(), BoxError>(())
            }
        }
    };
    w.subscribe(&subscriber, &name, "a").concurrency(2).handle(handler)?;
    let running = subscriber.start().await?;
    for n in 0..6 {
        w.publish("a", n).await?;
    }
    same!(sorted(seen.wait(6).await?), (0..6).collect::<Vec<_>>(), "events");
    let dead = w.wait_dead(&name, 3).await?;
    for one in dead {
        let n: u64 = one.event().map_err(ToString::to_string)?.data()?;
        same!((one.reason(), one.error_type()), (reason::PANIC, Some("Panic")), "reason and type");
        same!(one.error(), Some(format!("number {n}").as_str()), "the message");
    }
    running.stop().await?;
    Ok(())
}

/// As many handlers at once as asked for: not fewer, not more.
pub(super) async fn concurrency(w: Arc<World>) -> Done {
    let name = w.name("c");
    let (now, most, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let seen = w.seen();
    let subscriber = w.broker.subscriber();
    let handler = {
        let (now, most, gate, seen) = (now.clone(), most.clone(), gate.clone(), seen.clone());
        move |event: DomainEvent| {
            let (now, most, gate, seen) = (now.clone(), most.clone(), gate.clone(), seen.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await?.forget();
                now.fetch_sub(1, Ordering::SeqCst);
                seen.note(&event);
                Ok::<(), BoxError>(())
            }
        }
    };
    w.subscribe(&subscriber, &name, "a").concurrency(3).handle(handler)?;
    let running = subscriber.start().await?;
    for n in 0..9 {
        w.publish("a", n).await?;
    }
    w.eventually(|| async { Ok(now.load(Ordering::SeqCst) == 3) }).await.map_err(|e| format!("3 at once: {e}"))?;
    w.eventually(|| async { Ok(running.health()[0].buffered == 6) }).await.map_err(|e| format!("6 wait: {e}"))?;
    for done in 1..=9 {
        gate.add_permits(1);
        seen.wait(done).await?;
    }
    same!(most.load(Ordering::SeqCst), 3, "most handlers at once");
    w.eventually(|| async { Ok(metric(&w.broker, "tidings_acked_total", Some(&name)) >= 9) }).await?;
    running.stop().await?;
    Ok(())
}

/// Middleware wraps handlers in the order it was added, sees and replaces outcomes, and may leave the handler out.
pub(super) async fn middleware(w: Arc<World>) -> Done {
    struct Log(&'static str, Arc<Mutex<Vec<String>>>);
    #[async_trait]
    impl Middleware for Log {
        async fn handle(&self, event: DomainEvent, next: Next<'_>) -> Outcome {
            self.1.lock().push(format!("{} in", self.0));
            let number = event.data::<u64>().unwrap_or_default();
            if self.0 == "inner" && number == 2 {
                return Outcome::Discard;
            }
            let outcome = next.run(event.with_header("seen-by", self.0)).await;
            self.1.lock().push(format!("{} out", self.0));
            if self.0 == "outer" && number == 3 {
                return Outcome::DeadLetter { reason: "replaced".into(), message: None };
            }
            outcome
        }
    }
    let (name, log) = (w.name("m"), Arc::new(Mutex::new(Vec::new())));
    let subscriber = w.broker.subscriber();
    let subscriber = subscriber.middleware(Log("outer", log.clone())).middleware(Log("inner", log.clone()));
    let handler = {
        let log = log.clone();
        move |event: DomainEvent| {
            log.lock().push(format!("handler {}", event.headers().text("seen-by").unwrap_or_default()));
            async { Ok::<(), BoxError>(()) }
        }
    };
    w.subscribe(&subscriber, &name, "a").handle(handler)?;
    let running = subscriber.start().await?;
    let counted = |what: &str, n: u64| {
        let metric = metric(&w.broker, &format!("tidings_{what}_total"), Some(&name));
        async move { Ok(metric >= n) }
    };
    w.publish("a", 1).await?;
    w.eventually(|| counted("acked", 1)).await?;
    same!(*log.lock(), ["outer in", "inner in", "handler inner", "inner out", "outer out"], "the order");
    w.publish("a", 2).await?;
    w.eventually(|| counted("discarded", 1)).await?;
    w.publish("a", 3).await?;
    same!(w.wait_dead(&name, 1).await?[0].reason(), "replaced", "the reason");
    running.stop().await?;
    Ok(())
}
