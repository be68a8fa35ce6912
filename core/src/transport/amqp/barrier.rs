//! Acks have no answer: what to wait for before a channel may close.
//!
//! The channel of a quorum queue passes on 32 commands, keeps further acks until some of those are carried out, and
//! forgets what it keeps if it is closed before (3.10.8 and 4.0.5). Each answer to a question that the queue itself
//! answers, over the same channel, lets it pass on more.

use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::connection::answer_in_time;
use super::headers::name_of;
use crate::Result;

/// Questions to a queue that has events waiting, and the time between them.
const ROUNDS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `queue` was told of the acks that were sent on `channel`, which is about to close.
pub(super) async fn acks_passed_on(channel: &Channel, queue: &str) -> Result<()> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let mut gets = 0;
    for _ in 0..ROUNDS {
        let asking = channel.queue_declare(name_of(queue), options, FieldTable::default());
        if answer_in_time(asking, "counting a queue").await?.message_count() > 0 {
            // A `get` would take an event and spend one of its deliveries.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        // Carried out behind all commands that were passed on. The second one is behind what was kept until the first.
        let asking = channel.basic_get(name_of(queue), BasicGetOptions::default());
        let empty = answer_in_time(asking, "waiting for acks").await?.is_none();
        gets += 1;
        if gets == 3 || !empty {
            break;
        }
    }
    Ok(())
}
