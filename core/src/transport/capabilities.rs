//! What a transport declares that it can do.

use std::time::Duration;

/// How a transport keeps order per key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ordered {
    /// It does not: `ordered` subscriptions are refused.
    No,
    /// Any process may run any key; the transport hands a key to one of them at a time.
    Keyed,
    /// One process owns the subscription and runs its keys in parallel; others stand by.
    Single,
}

/// What a transport can do. The engine refuses what is missing with `UNSUPPORTED`, and the testkit prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Scheme of its URLs, also its name in messages.
    pub name: &'static str,
    /// Events outlive the process.
    pub durable: bool,
    /// Several processes can use it at once.
    pub multi_process: bool,
    /// Order per key.
    pub ordered: Ordered,
    /// With [`Ordered::Single`]: a subscription can be divided into partitions, each with an owner of its own.
    pub partitioned: bool,
    /// A settle by a consumer that has lost its lease or connection is refused.
    pub fenced_settle: bool,
    /// What a consumer that has lost its lease or connection publishes for a delivery (retry, dead letter) is refused.
    pub fenced_publish: bool,
    /// Of the events of a key in one batch, those that are stored come before those that are not.
    pub prefix_publish: bool,
    /// Longest delay of a retry or of a scheduled publish.
    pub max_delay: Duration,
    /// Largest body that can be configured, in bytes.
    pub max_payload: usize,
    /// It can tell whether any subscription wanted an event.
    pub reports_routing: bool,
    /// It can tell how many events are in flight.
    pub counts_in_flight: bool,
    /// Reserved: events can be read again from an offset.
    pub stream: bool,
}

impl Capabilities {
    /// The least that a transport can be; set the public fields to what it is.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            durable: false,
            multi_process: false,
            ordered: Ordered::No,
            partitioned: false,
            fenced_settle: false,
            fenced_publish: false,
            prefix_publish: false,
            max_delay: Duration::ZERO,
            max_payload: 1024 * 1024,
            reports_routing: false,
            counts_in_flight: false,
            stream: false,
        }
    }
}
