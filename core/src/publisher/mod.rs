//! Publishing: confirmed, pipelined, back-pressured.

mod middleware;
mod options;
#[allow(clippy::module_inception, reason = "`publisher::Publisher` lives in the file of its name")]
mod publisher;
mod under_way;

pub use middleware::{PublishMiddleware, PublishNext};
pub use options::PublishOptions;
pub use publisher::Publisher;
