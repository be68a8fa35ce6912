//! Plays a plan, and judges what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings::transport::memory::{Faults, MemoryTransport};
use tidings::{BoxError, Broker, DeadLetter, DomainEvent, ReplayAction, Retry, RetryPolicy, Running};

use super::plan::Step;

/// The ordered one is last.
const NAMES: [&str; 2] = ["plain", "ordered"];
const PROCESSES: usize = 2;
/// After which nothing comes any more that has not come yet.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What is known outside of publishers and handlers.
#[derive(Default)]
struct Ledger {
    handed_out: u64,
    accepted: BTreeSet<u64>,
    /// May have been published or not.
    unknown: BTreeSet<u64>,
    /// By subscription.
    finished: [BTreeSet<u64>; 2],
    /// The last first delivery of each key, on the ordered one.
    last: BTreeMap<String, u64>,
    delivered: BTreeSet<u64>,
    /// Given up on once, on the plain one.
    buried: BTreeSet<u64>,
    forgotten: Option<u64>,
    wrong: Vec<String>,
}

impl Ledger {
    fn delivered(&mut self, subscription: usize, event: &DomainEvent, seq: u64) {
        if !self.accepted.contains(&seq) && !self.unknown.contains(&seq) {
            self.wrong.push(format!("{seq} was invented"));
        }
        let Some(key) = event.key().filter(|_| subscription == 1 && self.delivered.insert(seq)) else { return };
        if let Some(before) = self.last.insert(key.to_owned(), seq)
            && before > seq
        {
            self.wrong.push(format!("{seq} of {key} came first after {before}"));
        }
    }

    fn missing(&self) -> Vec<(usize, u64)> {
        let of = |n: usize| self.accepted.difference(&self.finished[n]).map(move |seq| (n, *seq));
        of(0).chain(of(1)).collect()
    }
}

struct Play {
    faults: Faults,
    broker: Broker,
    ledger: Arc<Mutex<Ledger>>,
    processes: Vec<Running>,
}

/// Plays it to its end: then everything is mended, and all that was published has to be handled.
pub(crate) async fn play(plan: &[Step]) -> Result<(), String> {
    let transport = MemoryTransport::new();
    let faults = transport.faults();
    let broker = Broker::with_transport(Arc::new(transport));
    let mut stage = Play { faults, broker, ledger: Arc::default(), processes: Vec::new() };
    stage.start(PROCESSES).await.map_err(|e| e.to_string())?;
    for step in plan {
        stage.step(*step).await.map_err(|e| format!("{step:?}: {e}"))?;
    }
    stage.faults.clear();
    stage.faults.restore();
    stage.settle().await.map_err(|e| e.to_string())?;
    stage.judge()
}

impl Play {
    async fn start(&mut self, count: usize) -> Result<(), BoxError> {
        for _ in 0..count {
            let subscriber = self.broker.subscriber().drain_timeout(Duration::from_secs(1));
            for (number, name) in NAMES.into_iter().enumerate() {
                let mut building = subscriber.subscription(name).bind("#").concurrency(3).prefetch(10);
                building = building.retry(RetryPolicy::fixed(9, Duration::from_millis(300)));
                building = building.timeout(Duration::from_secs(5));
                if number == 1 {
                    building = building.ordered();
                }
                let ledger = self.ledger.clone();
                building.handle(move |event| handle(ledger.clone(), number, event))?;
            }
            self.processes.push(subscriber.start().await?);
        }
        Ok(())
    }

    async fn step(&mut self, step: Step) -> Result<(), BoxError> {
        let faults = self.faults.clone();
        match step {
            Step::Publish { key, count } => {
                for _ in 0..count {
                    self.publish(key).await?;
                }
            }
            Step::Fail { operation, when, times } => {
                faults.fail(operation, times.into(), tidings::ErrorKind::ConnectionFailed, when);
            }
            Step::Slow { operation, ms } => faults.delay(operation, Duration::from_millis(ms.into())),
            Step::Crash => {
                faults.crash_all();
                let dead = std::mem::take(&mut self.processes);
                self.start(PROCESSES).await?;
                // What they still do ends somewhere beside the others; that they failed is what was wanted.
                for process in dead {
                    tokio::spawn(async move { drop(process.stop().await) });
                }
            }
            Step::Cut { ms } => {
                faults.cut_all();
                pass(ms).await;
                faults.restore();
            }
            Step::Deploy => {
                let old = self.processes.remove(0);
                self.start(1).await?;
                old.stop().await?;
            }
            Step::Replay => self.replay().await?,
            Step::Wait { ms } => pass(ms).await,
            Step::Forget => {
                let mut ledger = self.ledger.lock();
                ledger.forgotten = ledger.accepted.last().copied();
                let forgotten = ledger.forgotten;
                for finished in &mut ledger.finished {
                    forgotten.map(|seq| finished.remove(&seq));
                }
            }
        }
        Ok(())
    }

    async fn publish(&self, key: u8) -> Result<(), BoxError> {
        let seq = {
            let mut ledger = self.ledger.lock();
            ledger.handed_out += 1;
            let seq = ledger.handed_out;
            // It may be handled before its confirm is heard of.
            ledger.unknown.insert(seq);
            seq
        };
        let event = DomainEvent::new("a.b", &seq)?.with_id(&seq.to_string())?;
        let event = if key > 0 { event.with_domain_object_id(format!("k{key}")) } else { event };
        let published = self.broker.publisher().publish(event).await;
        let mut ledger = self.ledger.lock();
        match published {
            Ok(_) => drop(ledger.accepted.insert(seq)),
            Err(error) if error.outcome_unknown() => {}
            // Nobody may see it; who has seen it already has seen what was not published.
            Err(_) if ledger.delivered.contains(&seq) => ledger.wrong.push(format!("{seq} was refused, and seen")),
            Err(_) => drop(ledger.unknown.remove(&seq)),
        }
        Ok(())
    }

    async fn replay(&self) -> Result<(), BoxError> {
        for name in NAMES {
            self.broker.replay(name).decide(|_| ReplayAction::Retry).await?;
        }
        Ok(())
    }

    /// Waits until everything is handled, and puts back what was given up on meanwhile.
    async fn settle(&mut self) -> Result<(), BoxError> {
        let until = tokio::time::Instant::now() + PATIENCE;
        while !self.ledger.lock().missing().is_empty() && tokio::time::Instant::now() < until {
            self.replay().await?;
            pass(5_000).await;
        }
        for process in self.processes.drain(..) {
            process.stop().await?;
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        let ledger = self.ledger.lock();
        let mut wrong = ledger.wrong.clone();
        let lost = ledger.missing();
        if !lost.is_empty() {
            wrong.push(format!("lost: {lost:?}"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

/// Handlers of all kinds, by what the event is.
async fn handle(ledger: Arc<Mutex<Ledger>>, subscription: usize, event: DomainEvent) -> Result<(), BoxError> {
    let seq: u64 = event.data()?;
    let first = event.retries() == 0;
    ledger.lock().delivered(subscription, &event, seq);
    match seq % 29 {
        3 if first => return Err("the first time it fails".into()),
        5 if event.retries() < 3 => return Err(Retry::after(Duration::from_millis(700)).into()),
        7 if first => std::future::pending::<()>().await,
        11 if first => panic!("the first time it panics"),
        13 if subscription == 0 && ledger.lock().buried.insert(seq) => {
            return Err(DeadLetter::because("to be put back").into());
        }
        17 => pass(1500).await,
        _ => tokio::task::yield_now().await,
    }
    let mut ledger = ledger.lock();
    if ledger.forgotten != Some(seq) {
        ledger.finished[subscription].insert(seq);
    }
    Ok(())
}

async fn pass(ms: u16) {
    tokio::time::sleep(Duration::from_millis(ms.into())).await;
}
