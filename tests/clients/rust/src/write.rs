//! Writes generated events into the outbox, and says which transactions were committed and which were rolled back.

use std::time::{Duration, Instant};

use serde_json::json;
use tidings::outbox::OutboxEvent;
use tidings::{BoxError, DomainEvent, Result};
use tidings_test_client::protocol::Write;

use crate::output::{answer, say, say_error};
use crate::publish::{self, Keys};
use crate::store::{Store, database};

/// Pause after a transaction that failed: the server may be starting.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes what `work` asks for; ends with the answer to command `n`, unless it hangs.
pub(crate) async fn run(store: Store, n: u64, work: Write) {
    let keys = match Keys::of(&work.events).await {
        Ok(keys) => keys,
        Err(error) => return say_error("write", n, "INVALID_OPTION", &error),
    };
    if work.hang {
        return answer("write", n, hang(&store, &work, &keys).await.map_err(database).map(|()| json!({})));
    }
    let (started, batch) = (Instant::now(), work.events.batch.max(1) as u64);
    for (number, from) in (1..).zip((0..work.events.count).step_by(work.events.batch.max(1))) {
        tokio::time::sleep(publish::until(&work.events, from, started)).await;
        let to = (from + batch).min(work.events.count);
        let roll_back = work.roll_back_every > 0 && number % work.roll_back_every == 0;
        let (how, did) = if roll_back { ("ROLLBACK", "rolled_back") } else { ("COMMIT", "confirmed") };
        let ids: Vec<_> = (from..to).map(|i| format!("{}{}", work.events.prefix, work.events.first + i)).collect();
        match write(&store, &work, &keys, from..to, how).await {
            Ok(()) => say(did, 0, json!({ "ids": ids })),
            Err(error) => {
                // Whether it was committed is not known, and it is not tried again.
                say("unknown", 0, json!({"ids": ids, "message": error.to_string()}));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    say("write", n, json!({"seconds": started.elapsed().as_secs_f64()}));
}

async fn write(
    store: &Store,
    work: &Write,
    keys: &Keys,
    seqs: std::ops::Range<u64>,
    how: &str,
) -> Result<(), BoxError> {
    let statements = store.writer.insert(store.dialect().default_style(), &events(work, keys, seqs)?)?;
    let transaction = store.transaction().await?;
    transaction.run(&statements).await?;
    store.end(transaction, how).await
}

/// Writes everything, says so and goes no further.
async fn hang(store: &Store, work: &Write, keys: &Keys) -> Result<(), BoxError> {
    let statements =
        store.writer.insert(store.dialect().default_style(), &events(work, keys, 0..work.events.count)?)?;
    let transaction = store.transaction().await?;
    transaction.run(&statements).await?;
    say("written", 0, json!({ "prefix": work.events.prefix }));
    std::future::pending().await
}

/// The keys are the writer's own: transactions of several writers overlap, and have no order among themselves.
fn events(work: &Write, keys: &Keys, seqs: std::ops::Range<u64>) -> Result<Vec<OutboxEvent>> {
    let event = |i| {
        let event: DomainEvent = publish::event(&work.events, keys, work.events.first + i)?;
        let key = format!("{}{}", work.events.prefix, event.key().unwrap_or_default());
        Ok(event.with_key(key).into())
    };
    seqs.map(event).collect()
}
