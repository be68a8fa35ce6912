//! Dead letters: looking at them, and moving them back.

mod dead_letter;
mod filter;
#[allow(clippy::module_inception, reason = "`replay::Replay` lives in the file of its name")]
mod replay;

pub use dead_letter::DeadLetterEntry;
pub use filter::DeadLetterFilter;
pub use replay::{Replay, ReplayAction, ReplayReport};
