//! Plays scenarios: each in a task of its own, so that none takes another down.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::scenario::{Scenario, scenarios};
use super::world::World;
use super::{Report, Subject, Verdict};
use crate::BoxError;
use crate::transport::Capabilities;

/// Longest time that a scenario may take, on a clock that is not paused.
const DEADLINE: Duration = Duration::from_secs(60);
/// The same in virtual time, where waiting costs nothing.
const VIRTUAL_DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Plays every scenario that `filter` chooses and prints one line for each.
///
/// A scenario that panics or takes longer than 60 s has failed; the others go on.
pub async fn run(subject: impl Subject, filter: impl Fn(&Scenario) -> bool) -> Report {
    let subject: Arc<dyn Subject> = Arc::new(subject);
    let chosen: Vec<Scenario> = scenarios().into_iter().filter(|scenario| filter(scenario)).collect();
    let name = subject.name();
    let capabilities = match subject.connect().await {
        Ok(broker) => {
            let capabilities = broker.capabilities();
            let _gone_anyway = broker.close().await;
            capabilities
        }
        Err(error) => {
            println!("{name}: FAILED: cannot be reached: {error}");
            let failed = |s: &Scenario| (s.name(), Verdict::Failed(error.to_string()), Duration::ZERO);
            return Report { verdicts: chosen.iter().map(failed).collect() };
        }
    };
    let parallel = if subject.virtual_time() { 1 } else { subject.parallel().max(1) };
    let verdicts = stream::iter(chosen)
        .map(|scenario| play(subject.clone(), scenario, &capabilities))
        .buffered(parallel)
        .inspect(|(scenario, verdict, took)| println!("{name}: {scenario} … {verdict} ({} ms)", took.as_millis()))
        .collect()
        .await;
    Report { verdicts }
}

async fn play(
    subject: Arc<dyn Subject>,
    scenario: Scenario,
    capabilities: &Capabilities,
) -> (&'static str, Verdict, Duration) {
    if let Some(missing) = scenario.missing(&*subject, capabilities) {
        return (scenario.name(), Verdict::Refused(missing), Duration::ZERO);
    }
    let started = std::time::Instant::now();
    let verdict = match attempt(subject, scenario).await {
        Ok(()) => Verdict::Passed,
        Err(reason) => Verdict::Failed(reason.to_string()),
    };
    (scenario.name(), verdict, started.elapsed())
}

async fn attempt(subject: Arc<dyn Subject>, scenario: Scenario) -> Result<(), BoxError> {
    let deadline = if subject.virtual_time() { VIRTUAL_DEADLINE } else { DEADLINE };
    let world = Arc::new(World::new(subject).await?);
    let mut task = tokio::spawn(scenario.play(world.clone()));
    let ended = tokio::time::timeout(deadline, &mut task).await;
    if ended.is_err() {
        task.abort();
    }
    // A broker that hangs must not hang the suite.
    let _in_time = tokio::time::timeout(deadline, world.clean_up()).await;
    match ended {
        Err(_) => Err(format!("took longer than {deadline:?}").into()),
        Ok(Ok(result)) => result,
        Ok(Err(error)) if error.is_panic() => Err(format!("panicked: {}", panic_text(error)).into()),
        Ok(Err(error)) => Err(error.into()),
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let payload = error.into_panic();
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}
