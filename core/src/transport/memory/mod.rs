//! The `memory` transport.
use std::sync::Arc;

use super::Transport;
use crate::Result;

/// Reaches the broker.
pub fn connect(_url: &str) -> Result<Arc<dyn Transport>> {
    unreachable!()
}
