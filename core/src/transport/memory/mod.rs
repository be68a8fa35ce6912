//! The `memory` transport: a broker inside the process, the reference for all others.
//!
//! All time is Tokio's, so a runtime with paused time runs it on a virtual clock; [`Faults`] makes it fail on purpose.
//! One mutex guards the whole broker and is never held over an await.

mod broker;
mod dead_letters;
mod faults;
mod handle;
mod ordered;
mod pipeline;
mod script;
mod settling;
mod source;
mod sources;
mod subscription;

pub use faults::Faults;
pub use handle::{MemoryTransport, connect};
pub use script::{Chances, Operation, When};
