//! The RabbitMQ transport against a real broker (`AMQP_URL`, default `amqp://guest:guest@127.0.0.1:5672`).
#![cfg(feature = "amqp")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "amqp/support.rs"]
mod support;

#[path = "amqp/connecting.rs"]
mod connecting;
#[path = "amqp/consuming.rs"]
mod consuming;
#[path = "amqp/dead_letters.rs"]
mod dead_letters;
#[path = "amqp/delays.rs"]
mod delays;
#[path = "amqp/ordered.rs"]
mod ordered;
#[path = "amqp/partitions.rs"]
mod partitions;
#[path = "amqp/publishing.rs"]
mod publishing;
#[path = "amqp/raw.rs"]
mod raw;
#[path = "amqp/recovery.rs"]
mod recovery;
