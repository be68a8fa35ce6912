//! A member of an ordered subscription: it joins, stands by until it receives the journal, owns the subscription, and
//! hands it over.
//!
//! Everything happens on one connection of its own, so that the broker fences all of it at once: when a part of it is
//! lost the member closes the whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::connection::{answer_in_time, backoff, open};
use super::super::headers::{name_of, properties};
use super::super::source::close_channel;
use super::consumer::{Deliveries, Kept, leave};
use super::declaring::{On, declare};
use super::journal::{Action, Entry, Journal, Record};
use super::owner::{Ended, Owner, gone, lost, read};
use super::shared::{Shared, Wish};
use super::{layout, names, splitter};
use crate::event::{Headers, Timestamp};
use crate::{Error, ErrorKind, Result};

/// Most that one channel can have unacked (0 would mean 2,000 on quorum queues).
const JOURNAL_PREFETCH: u16 = u16::MAX;
/// Time that closing the connection may take: what is not answered by then is gone, or frozen.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// A member that has handed over waits this long before it stands by again.
const AFTER_HAND_OVER: Duration = Duration::from_secs(2);

/// The consumer numbers of a connection that no key's queue has.
const JOURNAL: u64 = u64::MAX;
const EVENTS: u64 = u64::MAX - 1;

/// Takes part until the session lets go.
///
/// `known` says, once the queue was declared, whether it is single-active by itself.
pub(super) async fn run(shared: Arc<Shared>, mut known: Option<bool>) {
    let mut wish = shared.wish.subscribe();
    let mut attempt = 0;
    loop {
        if !wanted(&shared, &mut wish).await {
            return;
        }
        match tenure(&shared, &mut known, &mut wish).await {
            Ok(ended) => {
                attempt = 0;
                if ended == Ended::LetGo && wish.borrow().elsewhere {
                    shared.wish.send_modify(|wish| wish.elsewhere = false);
                    {
                        // It stands aside on purpose: nothing is wrong with it.
                        let mut standing = shared.standing.lock();
                        (standing.connected, standing.joined) = (true, true);
                    }
                    tokio::select! {
                        () = tokio::time::sleep(AFTER_HAND_OVER) => {}
                        _ = wish.wait_for(|wish| wish.closed || wish.stopped) => {}
                    }
                }
            }
            Err(error) => {
                shared.trouble(&error);
                // An exclusive consumer may be that of a connection which is about to go.
                let conflict =
                    error.kind() == ErrorKind::SubscriptionConflict && error.field_value() != Some("exclusive");
                if conflict || error.kind() == ErrorKind::Closed {
                    tracing::error!(subscription = %shared.name, %error, "the ordered subscription has ended here");
                    shared.standing.lock().failure = Some(error);
                    shared.ready.notify_one();
                    return;
                }
                if attempt == 0 {
                    tracing::warn!(subscription = %shared.name, %error, "lost an ordered subscription, joining again");
                }
                shared.standing.lock().recoveries += 1;
                known = None;
                tokio::select! {
                    () = tokio::time::sleep(backoff(attempt)) => {}
                    _ = wish.wait_for(|wish| wish.closed) => {}
                }
                attempt = attempt.saturating_add(1);
            }
        }
    }
}

/// Waits until the session wants events; `false` once it wants none any more.
async fn wanted(shared: &Shared, wish: &mut watch::Receiver<Wish>) -> bool {
    loop {
        let now = *wish.borrow_and_update();
        if now.closed || now.stopped {
            return false;
        }
        if now.flows && shared.asked.lock().elapsed() < shared.spec.max_hold / 2 {
            return true;
        }
        tokio::select! {
            changed = wish.changed() => if changed.is_err() { return false },
            () = shared.work.notified() => {}
        }
    }
}

/// One connection, from its beginning to its end.
async fn tenure(shared: &Arc<Shared>, known: &mut Option<bool>, wish: &mut watch::Receiver<Wish>) -> Result<Ended> {
    let live = Arc::new(open(&shared.config).await?);
    let kept = Kept::new(live.clone());
    let declared = match known {
        Some(single_active) => Ok(*single_active),
        None => declare(On::Live(&live), shared).await,
    };
    let result = match declared {
        Ok(single_active) => {
            *known = Some(single_active);
            if shared.splits() {
                splitter::stand_by(shared, &kept, wish).await
            } else {
                stand_by(shared, &kept, single_active, wish).await
            }
        }
        Err(error) => Err(error),
    };
    shared.clear();
    // Before anything of it is dropped: a consumer that is dropped would be cancelled.
    if tokio::time::timeout(CLOSE_WITHIN, live.close()).await.is_err() {
        tracing::debug!(subscription = %shared.name, "the broker did not answer the end of the connection");
    }
    result
}

/// How an owner is called.
fn owner_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "host" } else { host.trim() };
    format!("{host}/{}/{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Joins those who wait for the journal. Whoever receives it is the owner.
async fn stand_by(
    shared: &Arc<Shared>,
    kept: &Arc<Kept>,
    single_active: bool,
    wish: &mut watch::Receiver<Wish>,
) -> Result<Ended> {
    let live = kept.live();
    let channel = live.channel().await?;
    answer_in_time(channel.confirm_select(ConfirmSelectOptions::default()), "confirm mode").await?;
    let journal_channel = live.channel().await?;
    let queue = names::journal(&shared.queue);
    let mut journal = Deliveries::open(&journal_channel, kept, &queue, JOURNAL, JOURNAL_PREFETCH, false).await?;
    let name = owner_name();
    // So that there is one; the owner acks those that are too many.
    send(&channel, &queue, &Entry::Token { epoch: 0, owner: name.clone() }).await?;
    {
        let mut standing = shared.standing.lock();
        (standing.connected, standing.joined) = (true, true);
    }
    let first = loop {
        let now = *wish.borrow_and_update();
        if now.closed || now.stopped || now.elsewhere {
            return Ok(Ended::LetGo);
        }
        if !now.flows || shared.asked.lock().elapsed() >= shared.spec.max_hold / 2 {
            return Ok(Ended::NobodyAsks);
        }
        tokio::select! {
            item = journal.next() => break item,
            changed = wish.changed() => if changed.is_err() { return Ok(Ended::LetGo) },
            () = tokio::time::sleep(shared.spec.max_hold / 4) => {}
        }
    };
    let began = Instant::now();
    let (book, entries) = load(&channel, &journal_channel, &queue, &mut journal, first).await?;
    let mut owner = Owner::new(shared.clone(), kept.clone(), channel.clone(), book, name.clone());
    let keys = entries.records.len();
    for (key, record, tag) in entries.records {
        owner.inherit(&key, record, tag);
    }
    take_token(&mut owner, &mut journal, entries.tokens).await?;
    if !shared.spec.compat {
        // Whoever has changed the number of partitions meanwhile had the journal.
        layout::assert(On::Live(live), &shared.spec).await?;
    }
    shared.keys.lock().deliver_from(channel.clone());
    let prefetch = shared.spec.prefetch;
    let mut events = Deliveries::open(&channel, kept, &shared.queue, EVENTS, prefetch, !single_active).await?;
    *shared.alive.lock() = Some(began);
    shared.standing.lock().owner = Some(name);
    tracing::info!(subscription = %shared.queue, keys, took = ?began.elapsed(), "owns the ordered subscription");
    for Command { key, id, action, headers, tag } in entries.commands {
        owner.command(&key, &id, action, headers, tag)?;
    }
    let ended = owner.run(&mut journal, &mut events).await?;
    owner.finish().await?;
    hand_over(shared, &channel, &journal_channel).await;
    Ok(ended)
}

/// Lets go without a cancel: what is unacked goes back to its places when the channels close, the token last.
async fn hand_over(shared: &Shared, channel: &Channel, journal: &Channel) {
    let acked_many = shared.keys.lock().acked_many();
    leave(channel, acked_many).await;
    close_channel(journal).await;
}

struct Command {
    key: Arc<str>,
    id: Arc<str>,
    action: Action,
    headers: Headers,
    tag: u64,
}

/// What a journal held when it was received.
#[derive(Default)]
struct Entries {
    tokens: Vec<u64>,
    records: Vec<(Arc<str>, Record, u64)>,
    commands: Vec<Command>,
}

/// Reads the journal up to a marker of ours. Of a key's records the newest one counts.
async fn load(
    channel: &Channel,
    journal_channel: &Channel,
    queue: &str,
    journal: &mut Deliveries,
    first: Option<(u64, lapin::Result<lapin::message::Delivery>)>,
) -> Result<(Journal, Entries)> {
    let mark = crate::event::new_id().to_string();
    send(channel, queue, &Entry::Marker { id: mark.clone() }).await?;
    let mut entries = Entries::default();
    let mut newest: std::collections::HashMap<Arc<str>, ((u64, u64), Record, u64)> = std::collections::HashMap::new();
    let (mut last_epoch, mut done) = (0, Vec::new());
    let mut item = first;
    loop {
        let (_, delivery) = item.ok_or_else(|| gone("the journal was deleted"))?;
        let delivery = delivery.map_err(|e| lost(&e))?;
        let tag = delivery.delivery_tag;
        match read(&delivery) {
            Some((Entry::Token { epoch, .. }, _)) => {
                last_epoch = last_epoch.max(epoch);
                entries.tokens.push(tag);
            }
            Some((Entry::Record { key, epoch, sequence, record }, _)) => {
                last_epoch = last_epoch.max(epoch);
                let age = (epoch, sequence);
                match newest.get_mut(&key) {
                    Some(old) if old.0 >= age => done.push(tag),
                    Some(old) => {
                        done.push(old.2);
                        *old = (age, record, tag);
                    }
                    None => drop(newest.insert(key, (age, record, tag))),
                }
            }
            Some((Entry::Command { key, id, action }, headers)) => {
                entries.commands.push(Command { key, id, action, headers, tag });
            }
            Some((Entry::Marker { id }, _)) => {
                done.push(tag);
                if id == mark {
                    break;
                }
            }
            // Whoever asked has seen the journal itself, or asks again.
            Some((Entry::Ask { .. }, _)) => done.push(tag),
            None => {}
        }
        item = journal.next().await;
    }
    let book = Journal::new(journal_channel.clone(), last_epoch + 1);
    for tag in done {
        book.ack(tag);
    }
    entries.records = newest.into_iter().map(|(key, (_, record, tag))| (key, record, tag)).collect();
    Ok((book, entries))
}

/// Replaces all tokens by one of this tenure, whose epoch tells its records from those of earlier ones.
async fn take_token(owner: &mut Owner, journal: &mut Deliveries, old: Vec<u64>) -> Result<()> {
    let epoch = owner.journal.epoch();
    let entry = Entry::Token { epoch, owner: owner.name().to_owned() };
    send(&owner.channel, &names::journal(&owner.shared.queue), &entry).await?;
    loop {
        let (_, delivery) = journal.next().await.ok_or_else(|| gone("the journal was deleted"))?;
        let delivery = delivery.map_err(|e| lost(&e))?;
        let ours = matches!(read(&delivery), Some((Entry::Token { epoch: of, .. }, _)) if of == epoch);
        owner.journalled(Some((JOURNAL, Ok(delivery))))?;
        if ours {
            break;
        }
    }
    for tag in old {
        owner.journal.ack(tag);
    }
    Ok(())
}

/// Publishes an entry and waits for its confirm.
pub(super) async fn send(channel: &Channel, queue: &str, entry: &Entry) -> Result<()> {
    let body = serde_json::to_vec(entry)
        .map_err(|e| Error::new(ErrorKind::Internal, "an entry of the journal cannot be written").source(e))?;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = properties(&crate::event::new_id(), Timestamp::EPOCH, &Headers::new(), None, None)?;
    let sending = channel.basic_publish(name_of(""), name_of(queue), options, &body, properties);
    let confirm = answer_in_time(sending, "writing into the journal").await?;
    let confirmation = answer_in_time(confirm, "writing into the journal").await?;
    let taken = confirmation.is_ack() && confirmation.take_message().is_none();
    if taken { Ok(()) } else { Err(gone("the journal does not take entries")) }
}
