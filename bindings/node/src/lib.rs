//! The native part of the Node package `tidings`: types and conversion, no rules.
//!
//! JavaScript asks with a number (`op`), the work runs on Tokio, and finished answers go back in batches: one wake-up of
//! the event loop for all that finished meanwhile ([`bridge`]). The TypeScript side is in `node/src`.

#![allow(clippy::needless_pass_by_value, reason = "napi hands arguments over by value")]
#![cfg_attr(test, allow(dead_code, reason = "without Node nothing registers what JavaScript calls"))]
#![allow(unreachable_pub, reason = "what JavaScript sees is public there, not in Rust")]

mod bridge;
mod broker;
mod catalog;
mod cli;
mod convert;
mod delivery;
mod error;
mod inbox;
mod log;
mod outbox;
mod outcome;
mod publisher;
mod replay;
mod runtime;
mod subscriber;
