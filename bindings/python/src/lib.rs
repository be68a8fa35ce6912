//! `tidings._native`: the engine as Python objects.
//!
//! Types and conversion only: what happens to an event is decided in the core, how it looks in Python in `python/tidings`.
//! Nothing here starts a thread when it is imported.

#![allow(clippy::doc_markdown, reason = "the docs of classes and functions are Python's docstrings")]
#![allow(clippy::needless_pass_by_value, reason = "arguments of Python functions are handed over")]
#![allow(clippy::type_complexity, reason = "tuples are what Python unpacks")]
#![forbid(unsafe_code)]

mod bridge;
mod broker;
mod catalog;
mod cli;
mod convert;
mod delivery;
mod encode;
mod error;
mod event;
mod inbox;
mod log;
mod outbox;
mod outcome;
mod policy;
mod publisher;
mod replay;
mod runtime;
mod subscriber;
mod testing;

/// The native half of the package `tidings`. On an interpreter without the GIL it asks for one: it was not run without.
#[pyo3::pymodule(name = "_native", gil_used = true)]
mod native {
    #[pymodule_export]
    use super::bridge::{Bridge, Running};
    #[pymodule_export]
    use super::broker::{Broker, check_url, default_url, delete_queue};
    #[pymodule_export]
    use super::catalog::{Catalog, Topic};
    #[pymodule_export]
    use super::cli::command;
    #[pymodule_export]
    use super::convert::encode_json;
    #[pymodule_export]
    use super::delivery::{Deliveries, Delivery, Group};
    #[pymodule_export]
    use super::event::DomainEvent;
    #[pymodule_export]
    use super::inbox::{InboxRest, InboxWriter, MemoryClaim, MemoryClaims};
    #[pymodule_export]
    use super::log::refresh_log_level;
    #[pymodule_export]
    use super::outbox::{OutboxRelay, OutboxStore, OutboxWriter, outbox_schema};
    #[pymodule_export]
    use super::outcome::{Asked, asked};
    #[pymodule_export]
    use super::policy::RetryPolicy;
    #[pymodule_export]
    use super::publisher::{Publisher, Receipt};
    #[pymodule_export]
    use super::replay::{DeadLetterEntry, dead_letters, replay, replay_all, replay_event};
    #[pymodule_export]
    use super::runtime::{after_fork_in_child, after_fork_in_parent, before_fork, shutdown, threads_started};
    #[pymodule_export]
    use super::subscriber::check_subscription;
    #[pymodule_export]
    use super::testing::TestBroker;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("ERROR_CODES", super::error::codes())?;
        module.add("DEFAULT_EXCHANGE", tidings::transport::DEFAULT_EXCHANGE)
    }
}
