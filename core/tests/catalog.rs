//! The catalog as callers use it.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "catalog/declaring.rs"]
mod declaring;
#[path = "catalog/publishing.rs"]
mod publishing;
#[path = "catalog/resolving.rs"]
mod resolving;
#[path = "catalog/service.rs"]
mod service;
#[path = "catalog/support.rs"]
mod support;
