//! Dead letters one by one: shown, asked about, done at once.

use serde_json::json;
use tidings::{DeadLetterFilter, ReplayAction};

use super::dead_letters::{Move, describe};
use crate::confirm::ask;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::values::count;

/// Dead letters that are asked about unless --limit says otherwise.
const LIMIT: u64 = 1000;

/// Asks about every chosen dead letter. The end of the input leaves the rest.
pub(super) async fn run(context: &Context, options: Move) -> Result<Exit, Failure> {
    let broker = context.existing_broker().await?;
    let name = &options.subscription;
    let limit = usize::try_from(options.limit.unwrap_or(LIMIT)).unwrap_or(usize::MAX);
    let found = broker.dead_letters(name, &options.filter.engine(), limit).await?;
    let (mut replayed, mut discarded, mut left) = (0, 0, 0);
    for (at, dead) in found.iter().enumerate() {
        if !context.out.json {
            let heading = format!("{} of {}", at + 1, found.len());
            context.out.text(&format!("\n{}\n{}", context.out.bold(&heading), describe(context, dead)))?;
        }
        let Some(action) = tokio::task::block_in_place(question)? else { break };
        if action == ReplayAction::Leave {
            left += 1;
            continue;
        }
        // At once, so that what was answered is done whatever happens next. Nothing is held while people think.
        let filter = DeadLetterFilter::new().id(dead.id());
        let report = broker.replay(name).filter(filter).limit(1).decide(move |_| action).await?;
        replayed += report.replayed;
        discarded += report.discarded;
        if report.chosen == 0 {
            context.out.note("Somebody else has replayed or removed it meanwhile.");
        }
    }
    broker.close().await?;
    let untouched = found.len() as u64 - replayed - discarded - left;
    if context.out.json {
        context.out.value(&json!({
            "replayed": replayed, "discarded": discarded, "left": left, "not_asked": untouched,
        }))?;
    } else {
        let (replayed, discarded, left) = (count(replayed), count(discarded), count(left + untouched));
        context.out.line(format!("replayed {replayed}, discarded {discarded}, left {left}"))?;
    }
    Ok(Exit::Ok)
}

/// `None`: no more of this.
fn question() -> Result<Option<ReplayAction>, Failure> {
    loop {
        let Some(answer) = ask("[r]etry, [d]iscard, [l]eave, [q]uit? ")? else { return Ok(None) };
        return Ok(match answer.to_lowercase().as_str() {
            "r" | "retry" | "replay" => Some(ReplayAction::Retry),
            "d" | "discard" => Some(ReplayAction::Discard),
            "l" | "leave" => Some(ReplayAction::Leave),
            "q" | "quit" => None,
            _ => continue,
        });
    }
}
