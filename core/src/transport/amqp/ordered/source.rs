//! An ordered subscription as the session sees it: the events of all queues that this process owns.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::connection::Connector;
use super::super::source::stale;
use super::super::url::Config;
use super::declaring::{On, owned, subscription};
use super::shared::{Parts, Shared};
use super::{balance, layout, member};
use crate::host::Process;
use crate::transport::{Incoming, QueueType, Settlement, Source, SourceHealth, SubscriptionSpec, Token};
use crate::{Error, Result};

/// Time that a member gets to write what is decided and to hand over.
const CLOSE_WITHIN: Duration = Duration::from_secs(15);

/// A source of an ordered subscription's events.
pub(in super::super) struct OrderedSource {
    /// Those that may own keys: one for each partition.
    members: Vec<Arc<Shared>>,
    /// The one that may divide the subscription, if that has partitions.
    splitter: Option<Arc<Shared>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    ready: Arc<Notify>,
    /// The member that is asked first next time.
    turn: AtomicUsize,
    home: Process,
}

impl OrderedSource {
    /// Declares the subscription and joins those who wait to own it.
    pub(in super::super) async fn open(
        spec: &SubscriptionSpec,
        queue_type: QueueType,
        infrastructure: QueueType,
        config: &Arc<Config>,
        connector: &Arc<Connector>,
    ) -> Result<Arc<Self>> {
        let ready = Arc::new(Notify::new());
        let member = |queue: String, index, of| {
            let (spec, config, ready) = (spec.clone(), config.clone(), ready.clone());
            Shared::new(Parts { queue, spec, queue_type, infrastructure, config, ready }, index, of)
        };
        let first = member(spec.name.clone(), 0, 1);
        let single_active = declare_first(connector, &first).await?;
        let (members, splitter) = if first.splits() {
            let queues = layout::queues(&spec.name, spec.partitions);
            let of = queues.len() as u64;
            ((0..).zip(queues).map(|(index, queue)| member(queue, index, of)).collect(), Some(first))
        } else {
            (vec![first], None)
        };
        let mut tasks: Vec<_> = members
            .iter()
            .chain(&splitter)
            .map(|shared| tokio::spawn(member::run(shared.clone(), Some(single_active))))
            .collect();
        if let Some(splitter) = &splitter {
            tasks.push(tokio::spawn(balance::run(splitter.clone(), members.clone(), connector.clone())));
        }
        let (tasks, turn) = (Mutex::new(tasks), AtomicUsize::new(0));
        Ok(Arc::new(Self { members, splitter, tasks, ready, turn, home: Process::here() }))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Shared>> {
        self.members.iter().chain(&self.splitter)
    }

    fn take(&self, max: usize) -> Vec<Incoming> {
        let mut taken = Vec::new();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for at in 0..self.members.len() {
            if taken.len() >= max {
                break;
            }
            taken.append(&mut self.members[(first + at) % self.members.len()].take(max - taken.len()));
        }
        taken
    }

    fn member_of(&self, token: Token) -> Option<usize> {
        usize::try_from(token.id % u64::try_from(self.members.len()).ok()?).ok()
    }

    /// Why nothing will come any more, if so.
    fn failure(&self) -> Option<Error> {
        self.all().find_map(|member| member.standing.lock().failure.as_ref().map(Error::duplicate))
    }

    fn stopped(&self) -> bool {
        self.all().all(|member| member.wish.borrow().stopped)
    }
}

#[async_trait]
impl Source for OrderedSource {
    async fn next(&self, max: usize) -> Result<Vec<Incoming>> {
        self.home.check()?;
        loop {
            let ready = self.ready.notified();
            tokio::pin!(ready);
            ready.as_mut().enable();
            if self.stopped() {
                return Ok(Vec::new());
            }
            for member in self.all() {
                *member.asked.lock() = Instant::now();
                member.wake_unless_joined();
            }
            if let Some(error) = self.failure() {
                return Err(error);
            }
            let taken = self.take(max.max(1));
            if !taken.is_empty() {
                return Ok(taken);
            }
            // The time-out only says that somebody still asks.
            let _asked = tokio::time::timeout(Duration::from_secs(60), ready).await;
        }
    }

    async fn settle(&self, batch: Vec<(Token, Settlement)>) -> Vec<Result<()>> {
        if let Err(error) = self.home.check() {
            return batch.iter().map(|_| Err(error.duplicate())).collect();
        }
        let count = batch.len();
        let mut parts: Vec<(Vec<usize>, Vec<(Token, Settlement)>)> = Vec::new();
        parts.resize_with(self.members.len(), Default::default);
        for (place, (token, settlement)) in batch.into_iter().enumerate() {
            if let Some(member) = self.member_of(token) {
                parts[member].0.push(place);
                parts[member].1.push((token, settlement));
            }
        }
        let settling = parts
            .into_iter()
            .zip(&self.members)
            .filter(|((places, _), _)| !places.is_empty())
            .map(async |((places, part), member)| (places, member.settle(part).await));
        let mut results: Vec<Result<()>> = std::iter::repeat_with(|| Err(stale())).take(count).collect();
        for (places, part) in futures_util::future::join_all(settling).await {
            for (place, result) in places.into_iter().zip(part) {
                results[place] = result;
            }
        }
        results
    }

    fn may_begin(&self, token: Token) -> bool {
        self.member_of(token).is_some_and(|member| self.members[member].may_begin(token))
    }

    async fn set_flow(&self, open: bool) -> Result<()> {
        self.home.check()?;
        for member in self.all() {
            *member.asked.lock() = Instant::now();
            member.wish.send_modify(|wish| wish.flows = open);
        }
        self.ready.notify_one();
        Ok(())
    }

    fn health(&self) -> SourceHealth {
        if let Err(error) = self.home.check() {
            return SourceHealth { last_error: Some(error.to_string()), ..SourceHealth::default() };
        }
        let mut all = self.all().map(|member| member.health());
        let first = all.next().unwrap_or_default();
        all.fold(first, |sum, one| SourceHealth {
            connected: sum.connected && one.connected,
            consuming: sum.consuming && one.consuming,
            recoveries: sum.recoveries + one.recoveries,
            last_error: sum.last_error.or(one.last_error),
            order: sum.order.map(|order| order.and(one.order.unwrap_or_default())),
            held: sum.held + one.held,
            limited_by: sum.limited_by.or(one.limited_by),
        })
    }

    async fn stop(&self) {
        if self.home.check().is_err() {
            return;
        }
        for member in self.all() {
            member.wish.send_modify(|wish| wish.stopped = true);
        }
        self.ready.notify_one();
    }

    async fn close(&self) {
        if self.home.check().is_err() {
            return;
        }
        self.let_go();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        let ending = tasks.into_iter().map(async |mut task| {
            if tokio::time::timeout(CLOSE_WITHIN, &mut task).await.is_err() {
                tracing::warn!("an ordered subscription was not handed over in time; its connection is dropped");
                task.abort();
            }
        });
        futures_util::future::join_all(ending).await;
    }
}

/// Declares what the subscription has on the broker. Whether one consumer at a time is what its queue itself ensures.
async fn declare_first(connector: &Arc<Connector>, shared: &Arc<Shared>) -> Result<bool> {
    let (spec, on) = (&shared.spec, On::Connector(connector));
    let single_active = subscription(on, spec, shared.queue_type, shared.infrastructure).await?;
    if !spec.compat {
        layout::settle(connector, &shared.config, spec, shared.queue_type).await?;
    }
    owned(on, shared).await?;
    Ok(single_active)
}

impl OrderedSource {
    fn let_go(&self) {
        for member in self.all() {
            member.wish.send_modify(|wish| (wish.stopped, wish.closed) = (true, true));
        }
        self.ready.notify_one();
    }
}

impl Drop for OrderedSource {
    fn drop(&mut self) {
        self.let_go();
    }
}
