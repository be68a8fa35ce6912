//! A parked key whose queue does not answer, for instance because it has no leader, is set aside: its events stay where
//! they are, what arrives behind them is held, and its queue is tried again. Other keys go on.
//!
//! A queue is asked by publishing a marker into it on a channel of its own: without a leader that is refused, or not
//! answered. Consuming would make the server end the whole connection (541).

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use tokio::time::Instant;

use super::super::connection::{Live, answer_in_time};
use super::super::headers::name_of;
use super::super::source::close_channel;
use super::super::topology::Declarer;
use super::event::{Event, MARKER};
use super::key::{Key, KeyId, Stage};
use super::owner::{Owner, confirmed, gone};
use crate::transport::QueueType;
use crate::{Error, ErrorKind, Result};

/// Pause before a queue that did not answer is tried again: the first, and the longest that it doubles to.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Owner {
    /// Puts what waits of a parked key behind the others in its queue. It is acked where it was once it is there, and the
    /// queue is old enough.
    ///
    /// Until the queue has taken one, one goes at a time: a queue without a leader refuses what comes on a channel that
    /// is new to it, and the next one must not overtake what was refused.
    pub(super) fn divert(&mut self, id: &KeyId) -> Result<()> {
        while let Some(event) = self.with(id, Key::next_to_divert).flatten() {
            let (queue, of) = (self.queue_of(id), id.clone());
            let event = Arc::new(event);
            let sent = event.clone();
            self.publish(vec![Box::new(move |reply| sent.outbound(&queue, reply))], move |owner, outcomes| {
                owner.diverted(&of, event, confirmed(&outcomes))
            })?;
        }
        Ok(())
    }

    fn diverted(&mut self, id: &KeyId, event: Arc<Event>, taken: Result<()>) -> Result<()> {
        let proven = self.with(id, |key| {
            let parked = key.parked.as_mut()?;
            parked.under_way = parked.under_way.saturating_sub(1);
            let before = parked.proven;
            parked.proven |= taken.is_ok();
            Some(before)
        });
        let Err(error) = taken else {
            let waits = self.with(id, |key| key.parked.as_mut()?.copied.keep(event.tag)).flatten();
            let mut keys = self.shared.keys.lock();
            match waits {
                Some(until) => keys.wake_at(until, id),
                None => keys.ack(&[event.tag]),
            }
            drop(keys);
            return self.divert(id);
        };
        let error = self.alive_after(error)?;
        let Some(event) = Arc::into_inner(event).filter(|_| proven.flatten() == Some(false)) else {
            return Err(error);
        };
        let rests = self.with(id, |key| {
            let stage = key.parked.as_ref().map(|parked| &parked.stage);
            let rests = match stage {
                Some(Stage::Resting) => true,
                // Whoever opens it finds out.
                Some(Stage::Opening | Stage::Aside(_)) => false,
                _ => return None,
            };
            key.fifo.push_front(event);
            Some(rests)
        });
        match rests.flatten() {
            Some(true) => self.set_aside(id, &error),
            Some(false) => {}
            None => return Err(error),
        }
        Ok(())
    }

    /// The error, if the connection goes on in spite of it.
    pub(super) fn alive_after(&self, error: Error) -> Result<Error> {
        if self.live.connected() && self.channel.status().connected() { Ok(error) } else { Err(error) }
    }

    /// Its queue is tried again later, and later each time. When that is.
    pub(super) fn put_off(&self, id: &KeyId) -> (u32, Instant) {
        let mut aside = self.shared.aside.lock();
        let attempt = aside.get(id).map_or(0, |(attempt, _)| attempt.saturating_add(1));
        let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE);
        let put_off = (attempt, Instant::now() + pause);
        aside.insert(id.clone(), put_off);
        put_off
    }

    /// Its queue answers.
    pub(super) fn answers(&self, id: &KeyId) {
        if self.shared.aside.lock().remove(id).is_some() {
            tracing::info!(queue = %self.queue_of(id), "the queue of a parked key answers again");
        }
    }

    fn trouble_with(&self, id: &KeyId, error: &Error) -> Instant {
        let (attempt, until) = self.put_off(id);
        let queue = self.queue_of(id);
        let error = Error::new(ErrorKind::ConnectionFailed, format!("queue {queue} of a parked key: {error}"))
            .field("queue", &queue)
            .remedy("see that the queue has a leader (tidings doctor); its key goes on by itself then, others are not delayed");
        if attempt == 0 {
            tracing::warn!(%queue, %error, "the queue of a parked key does not answer, its key waits");
        }
        self.shared.trouble(&error);
        until
    }

    /// The queue of a key does not answer: the key waits, with what arrives of it.
    pub(super) fn set_aside(&self, id: &KeyId, error: &Error) {
        let until = self.trouble_with(id, error);
        self.stand_aside(id, until);
    }

    fn stand_aside(&self, id: &KeyId, until: Instant) {
        self.with(id, |key| {
            if let Some(parked) = &mut key.parked {
                parked.stage = Stage::Aside(until);
            }
        });
        self.shared.keys.lock().wake_at(until, id);
    }

    /// Whether the key is to wait, since an earlier tenure could not open its queue.
    pub(super) fn wait_aside(&self, id: &KeyId) -> bool {
        let until = self.shared.aside.lock().get(id).map(|(_, until)| *until);
        let until = until.filter(|until| *until > Instant::now());
        if let Some(until) = until {
            self.stand_aside(id, until);
        }
        until.is_some()
    }

    /// The empty queue of a key cannot be deleted: what arrives waits until it can.
    pub(super) fn set_aside_leaving(&mut self, id: KeyId, error: &Error) {
        let until = self.trouble_with(&id, error);
        self.when(tokio::time::sleep_until(until), move |owner, ()| {
            owner.vacate(id, None);
            Ok(())
        });
    }

    /// Asks the queue of a key that was set aside.
    pub(super) fn try_again(&mut self, id: KeyId) {
        self.with(&id, |key| {
            if let Some(parked) = &mut key.parked {
                parked.stage = Stage::Moving;
            }
        });
        let (live, queue, queue_type) = (self.live.clone(), self.queue_of(&id), self.shared.queue_type);
        self.when(async move { prove(&live, &queue, queue_type).await }, move |owner, proved| {
            if let Err(error) = proved {
                let error = owner.alive_after(error)?;
                owner.set_aside(&id, &error);
                return Ok(());
            }
            owner.answers(&id);
            owner.with(&id, |key| {
                if let Some(parked) = &mut key.parked {
                    parked.stage = Stage::Resting;
                    parked.copied.begin_anew();
                }
            });
            owner.wait_for(&id);
            owner.divert(&id)
        });
    }
}

/// Declares the queue of a key, which may have gone with its last event, and sees that it takes a message.
pub(super) async fn prove(live: &Live, queue: &str, queue_type: QueueType) -> Result<()> {
    let declarer = Declarer::on(live).await?;
    let made = declarer.single_active(queue, queue_type).await;
    declarer.close_after(made).await?;
    if answers(live, queue).await? { Ok(()) } else { Err(gone("a key's queue was deleted")) }
}

/// Sees that a queue takes a message; `false`: there is no such queue.
pub(super) async fn answers(live: &Live, queue: &str) -> Result<bool> {
    let channel = live.channel().await?;
    let proved = ask(&channel, queue).await;
    // Behind a question without an answer this takes its time, and nobody needs to wait for it.
    tokio::spawn(async move { close_channel(&channel).await });
    proved
}

async fn ask(channel: &Channel, queue: &str) -> Result<bool> {
    let what = format!("publishing to queue {queue}");
    answer_in_time(channel.confirm_select(ConfirmSelectOptions::default()), "confirm mode").await?;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = lapin::BasicProperties::default().with_type(MARKER.into());
    let sending = channel.basic_publish(name_of(""), name_of(queue), options, &[], properties);
    let confirm = answer_in_time(sending, &what).await?;
    let confirmation = answer_in_time(confirm, &what).await?;
    if !confirmation.is_ack() {
        return Err(Error::new(ErrorKind::ConnectionFailed, format!("the broker refused {what}")));
    }
    Ok(confirmation.take_message().is_none())
}
