//! What a publisher does with odd input.
#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use tidings::{DomainEvent, PublishOptions, Publisher};

#[tokio::test]
async fn the_longest_time_out_is_none() {
    let publisher = Publisher::connect("memory:").await.unwrap();
    let event = DomainEvent::new("a.b", &1).unwrap();
    publisher.publish_with(event, PublishOptions::new().timeout(Duration::MAX)).await.unwrap();
}
