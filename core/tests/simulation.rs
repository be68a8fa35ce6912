//! The fault rig inside one process and under virtual time: publishers, subscribers and the memory transport, on which
//! connections are cut, consumers crash, and calls fail before or after they took effect.
//!
//! A seed makes a plan, a list of steps. A plan that loses, invents or disorders is shrunk to one in which every step is
//! needed, and printed. `TIDINGS_SEED` plays one seed, `TIDINGS_SEEDS` that many.
#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/play.rs"]
mod play;

use plan::{Step, plan};
use play::play;

const SEEDS: u64 = 150;

/// What is wrong with a plan. Each on a clock of its own.
fn verdict(plan: &[Step]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(plan))
}

/// The same plan without the steps that are not needed for it to fail.
fn shrink(mut plan: Vec<Step>, fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut size = plan.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < plan.len() {
            let without = [&plan[..at], &plan[(at + size).min(plan.len())..]].concat();
            if fails(&without) {
                plan = without;
            } else {
                at += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    plan
}

#[test]
fn nothing_is_lost_invented_or_out_of_order() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = number("TIDINGS_SEED").map_or(0..number("TIDINGS_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(wrong) = verdict(&plan(seed)) {
            let least = shrink(plan(seed), |plan| verdict(plan).is_err());
            let why = verdict(&least).err().unwrap_or_default();
            panic!("seed {seed}: {wrong}\nleast plan: {least:#?}\n{why}");
        }
    }
}

#[test]
fn what_is_wrong_is_found_and_shrunk() {
    let mut steps = plan(7);
    let middle = steps.len() / 2;
    steps.splice(middle..middle, [Step::Publish { key: 1, count: 3 }, Step::Forget, Step::Wait { ms: 10 }]);
    let wrong = verdict(&steps).unwrap_err();
    assert!(wrong.contains("lost"), "{wrong}");
    let least = shrink(steps, |plan| verdict(plan).is_err());
    assert!(matches!(least[..], [Step::Publish { .. }, Step::Forget]), "{least:#?}");
}

#[test]
fn a_seed_is_a_plan() {
    assert_eq!(plan(3), plan(3));
    assert_ne!(plan(3), plan(4));
}
