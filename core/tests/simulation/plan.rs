//! What happens, step by step, made of a seed.

use fastrand::Rng;
use tidings::transport::memory::{Operation, When};

const STEPS: usize = 60;

/// One step of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Publishes some events of a key; the key 0 is none.
    Publish { key: u8, count: u8 },
    /// The next calls of this kind fail.
    Fail { operation: Operation, when: When, times: u8 },
    /// All calls of this kind take so long from now on.
    Slow { operation: Operation, ms: u16 },
    /// All consumers crash, and their processes start again.
    Crash,
    /// All connections are cut for so long.
    Cut { ms: u16 },
    /// A process of each subscription is stopped in good order and starts again.
    Deploy,
    /// Dead letters are put back.
    Replay,
    /// Time passes.
    Wait { ms: u16 },
    /// The last event that was published is handled by nobody: the bug that the rig has to find.
    Forget,
}

/// The plan of a seed.
pub(crate) fn plan(seed: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    (0..rng.usize(STEPS / 4..=STEPS)).map(|_| step(&mut rng)).collect()
}

fn step(rng: &mut Rng) -> Step {
    let when = if rng.bool() { When::Before } else { When::After };
    match rng.u8(..24) {
        0..8 => Step::Publish { key: rng.u8(..4), count: rng.u8(1..9) },
        8..11 => Step::Fail { operation: Operation::Publish, when, times: rng.u8(1..4) },
        11..14 => Step::Fail { operation: Operation::Settle, when, times: rng.u8(1..4) },
        14 => {
            let operation = [Operation::Publish, Operation::Settle, Operation::Next][rng.usize(..3)];
            Step::Slow { operation, ms: if rng.bool() { 0 } else { rng.u16(1..400) } }
        }
        15 => Step::Crash,
        16 => Step::Cut { ms: rng.u16(..3000) },
        17 => Step::Deploy,
        18 => Step::Replay,
        _ => Step::Wait { ms: rng.u16(..2000) },
    }
}
