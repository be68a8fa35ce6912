//! Spreads the partitions over the processes: whoever has more than its share hands one over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::connection::Connector;
use super::super::topology::Declarer;
use super::names;
use super::shared::Shared;
use crate::Result;

/// How often a process compares what it has with its share.
const EVERY: Duration = Duration::from_secs(1);
/// Time that handlers get to finish before a partition that was to be handed over stays.
const PATIENCE: Duration = Duration::from_secs(10);
/// After that, the next attempt.
const PAUSE: Duration = Duration::from_secs(30);

/// Runs until the source is closed.
pub(super) async fn run(splitter: Arc<Shared>, members: Vec<Arc<Shared>>, connector: Arc<Connector>) {
    let mut wish = splitter.wish.subscribe();
    let mut leaving: Option<(Arc<Shared>, Instant)> = None;
    let mut wait = EVERY;
    loop {
        tokio::select! {
            closed = wish.wait_for(|wish| wish.closed || wish.stopped) => { drop(closed); return; }
            () = tokio::time::sleep(std::mem::replace(&mut wait, EVERY)) => {}
        }
        if let Some((member, since)) = &leaving {
            if !member.wish.borrow().elsewhere {
                leaving = None;
            } else if since.elapsed() >= PATIENCE {
                // Its handlers take long. Its other keys have waited enough.
                member.wish.send_modify(|wish| wish.elsewhere = false);
                (leaving, wait) = (None, PAUSE);
            }
            continue;
        }
        let owned: Vec<_> = members.iter().filter(|member| member.standing.lock().owner.is_some()).collect();
        if owned.len() < 2 {
            continue;
        }
        match processes(&connector, &splitter.name).await {
            Ok(processes) if owned.len() > members.len().div_ceil(processes.max(1)) => {
                let Some(idlest) = owned.into_iter().min_by_key(|member| member.keys.lock().in_hand()) else {
                    continue;
                };
                tracing::info!(partition = %idlest.queue, processes, "hands a partition over");
                idlest.wish.send_modify(|wish| wish.elsewhere = true);
                leaving = Some((idlest.clone(), Instant::now()));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "who else has the subscription is not known"),
        }
    }
}

/// How many processes take part.
async fn processes(connector: &Connector, name: &str) -> Result<usize> {
    let declarer = Declarer::open(connector).await?;
    let Some(found) = declarer.look(&names::processes(name)).await? else { return Ok(1) };
    declarer.close().await;
    Ok(usize::try_from(found.consumer_count()).unwrap_or(usize::MAX))
}
