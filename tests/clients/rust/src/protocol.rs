//! The lines that go over the pipe, as types. See `tests/clients/PROTOCOL.md`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A command with the number that its answer carries.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request<C = Command> {
    /// Returned with the answer.
    #[serde(default)]
    pub n: u64,
    /// What to do.
    #[serde(flatten)]
    pub command: C,
}

/// What a client can be told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Reaches a broker.
    Connect {
        /// Its URL.
        url: String,
    },
    /// Publishes generated events.
    Publish(Publish),
    /// Publishes one given event.
    PublishEvent(PublishEvent),
    /// Starts handling.
    Subscribe(Subscribe),
    /// Asks what subscriptions are doing.
    Health,
    /// Asks for counters and what the process has used.
    Stats,
    /// Asks how many events wait.
    Depths {
        /// Only these subscriptions; empty: all.
        #[serde(default)]
        names: Vec<String>,
    },
    /// Looks at dead letters.
    DeadLetters {
        /// Subscription.
        name: String,
        /// At most so many.
        #[serde(default = "hundred")]
        limit: usize,
    },
    /// Replays dead letters.
    Replay {
        /// Subscription.
        name: String,
        /// What to do with each.
        #[serde(default)]
        action: Action,
    },
    /// Deletes a subscription.
    Delete {
        /// Subscription.
        name: String,
    },
    /// Drains all subscriptions.
    Stop,
    /// Reaches the database in which this client writes, from which it relays, and where its inbox is.
    Store {
        /// Its URL.
        url: String,
        /// Name of the outbox's table; the inbox and the effects have names that begin with it.
        table: String,
        /// Creates the tables.
        #[serde(default)]
        install: bool,
    },
    /// Writes generated events into the outbox, in transactions.
    Write(Write),
    /// Runs a relay from the store to the broker.
    Relay {
        /// Lease.
        lease_ms: u64,
        /// Rows of one batch.
        #[serde(default = "thousand")]
        batch: usize,
    },
    /// Asks how many rows of the outbox wait, and how many have failed.
    Outbox,
    /// Asks for the ids that handlers with an inbox have left in the database.
    Effects,
    /// Removes the tables of the store.
    Uninstall,
}

/// Fields of `write`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Write {
    /// What, and how fast: a `batch` is a transaction.
    #[serde(flatten)]
    pub events: Publish,
    /// Every so many transactions one is rolled back; 0: none.
    #[serde(default)]
    pub roll_back_every: u64,
    /// Writes everything in one transaction, says so, and leaves it open.
    #[serde(default)]
    pub hang: bool,
}

/// What a replay does with each dead letter.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Puts it back.
    #[default]
    Retry,
    /// Removes it.
    Discard,
    /// Leaves it.
    Leave,
}

/// Fields of `publish`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Publish {
    /// How many.
    pub count: u64,
    /// Ids are this plus the sequence number.
    pub prefix: String,
    /// First sequence number.
    #[serde(default)]
    pub first: u64,
    /// Number of ordering keys; 0: none.
    #[serde(default)]
    pub keys: u64,
    /// A file with the ordering key of each event, one a line, instead of them. An empty line is an event without one.
    #[serde(default)]
    pub keys_from: Option<std::path::PathBuf>,
    /// Some keys are much more frequent than others (Zipf), instead of all alike.
    #[serde(default)]
    pub skewed: bool,
    /// Most unconfirmed at once.
    #[serde(default = "thousand")]
    pub in_flight: usize,
    /// Events per second; none: as fast as confirms come.
    #[serde(default)]
    pub rate: Option<f64>,
    /// Size of the body to reach.
    #[serde(default)]
    pub bytes: usize,
    /// Routing key.
    #[serde(default = "routing_key")]
    pub routing_key: String,
    /// Publishes for later.
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// Events per call.
    #[serde(default = "one")]
    pub batch: usize,
}

/// Fields of `publish_event`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublishEvent {
    /// The wire object.
    pub event: WireEvent,
    /// Text headers.
    #[serde(default)]
    pub headers: std::collections::BTreeMap<String, String>,
    /// Publishes for later.
    #[serde(default)]
    pub delay_ms: Option<u64>,
}

/// The five keys of the wire, the last three optional.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WireEvent {
    /// Routing key.
    pub routing_key: String,
    /// Payload.
    pub data: Value,
    /// Entity.
    #[serde(default)]
    pub domain_object_id: Option<String>,
    /// Id; made if missing.
    #[serde(default)]
    pub uuid_string: Option<String>,
    /// Time; now if missing.
    #[serde(default)]
    pub timestamp: Option<f64>,
}

/// Fields of `subscribe`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subscribe {
    /// Subscription.
    pub name: String,
    /// Binding keys.
    pub bindings: Vec<String>,
    /// Handlers at once.
    #[serde(default = "one")]
    pub concurrency: usize,
    /// Most fetched and unsettled.
    #[serde(default)]
    pub prefetch: Option<u16>,
    /// Order per key.
    #[serde(default)]
    pub ordered: bool,
    /// Most retries.
    #[serde(default)]
    pub max_retries: u32,
    /// Keep what is given up on.
    #[serde(default = "yes")]
    pub dead_letter: bool,
    /// Declare what domain-event-broker declares.
    #[serde(default)]
    pub compat: bool,
    /// Classic queue.
    #[serde(default)]
    pub classic: bool,
    /// Lease of a claim.
    #[serde(default)]
    pub lease_ms: Option<u64>,
    /// Ordered: longest delay of a head that is held.
    #[serde(default)]
    pub hold_max_ms: Option<u64>,
    /// Longest run of a handler.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Ordered: queues that the keys are divided into.
    #[serde(default)]
    pub partitions: Option<u16>,
    /// What the handler does.
    #[serde(default)]
    pub handler: HandlerKind,
    /// What is said about each event.
    #[serde(default)]
    pub report: Report,
    /// The handler leaves the id in the store's database, in a transaction with its claim, and nothing else.
    #[serde(default)]
    pub inbox: bool,
}

impl Subscribe {
    /// A subscription with the protocol's defaults.
    pub fn new(name: impl Into<String>, binding: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            bindings: vec![binding.into()],
            concurrency: 1,
            prefetch: None,
            ordered: false,
            max_retries: 0,
            dead_letter: true,
            compat: false,
            classic: false,
            lease_ms: None,
            hold_max_ms: None,
            timeout_ms: None,
            partitions: None,
            handler: HandlerKind::default(),
            report: Report::default(),
            inbox: false,
        }
    }
}

/// What is said about each event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// One line each.
    #[default]
    Effects,
    /// One line each, with the event and its headers.
    Events,
    /// Nothing; `stats` counts.
    None,
}

/// What a handler does.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HandlerKind {
    /// Nothing.
    #[default]
    Ok,
    /// Retries some events for a while.
    RetryFirst {
        /// Retries of each.
        #[serde(default = "one_retry")]
        times: u32,
        /// Which: multiples of this.
        #[serde(default = "every_one")]
        every: u64,
        /// Delay of each retry; the last one repeats.
        delays_ms: Vec<u64>,
    },
    /// Retries each time.
    RetryAlways {
        /// Delay of each retry; the last one repeats.
        delays_ms: Vec<u64>,
    },
    /// Raises.
    Fail {
        /// With this text.
        #[serde(default)]
        message: String,
    },
    /// Dead-letters.
    Dead {
        /// For this reason.
        reason: String,
    },
    /// Takes its time.
    Sleep {
        /// That long.
        ms: u64,
    },
    /// Is slow now and then, hangs once with some events until it is given up on, and may end the process.
    Troubled {
        /// Which are slow: multiples of this.
        slow_every: u64,
        /// How slow.
        slow_ms: u64,
        /// Which hang when they come first: multiples of this.
        hang_every: u64,
        /// Ends the process when it has begun so often; 0: never.
        #[serde(default)]
        exit_after: u64,
    },
    /// Ends the process.
    Exit {
        /// At this event.
        seq: u64,
    },
    /// Says when it begins, takes a few milliseconds, and treats a twentieth of the events badly, always the same ones:
    /// retries after a short or a long delay, dead letters until the event has a certain age.
    Unsteady {
        /// Short delay.
        short_ms: u64,
        /// Long delay.
        long_ms: u64,
        /// Age from which on no event is dead any more.
        mended_after_ms: u64,
    },
}

/// What [`HandlerKind::Unsteady`] does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Handles it.
    Good,
    /// Asks for so many retries after the short delay.
    Short(u32),
    /// Asks for so many retries after the long delay.
    Long(u32),
    /// Dead-letters it until it is old enough.
    Dead,
}

impl Mood {
    /// The same for an event in every process.
    pub fn of(seq: u64) -> Self {
        // Mixes the bits, so that neighbours have nothing in common.
        let mixed = (seq ^ (seq >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let times = u32::try_from(mixed >> 60).unwrap_or(0);
        match (mixed >> 20) % 1000 {
            0..40 => Self::Short(1 + times % 3),
            40..50 => Self::Long(1 + times % 2),
            50..54 => Self::Dead,
            _ => Self::Good,
        }
    }
}

/// A line that a client writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// The command, or `confirmed`, `failed`, `effect`.
    pub did: String,
    /// Number of the command.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n: u64,
    /// Set when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorLine>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// Why a command failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorLine {
    /// The stable code.
    pub code: String,
    /// The text.
    pub message: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn one_retry() -> u32 {
    1
}

fn every_one() -> u64 {
    1
}

fn hundred() -> usize {
    100
}

fn thousand() -> usize {
    1000
}

fn routing_key() -> String {
    "rig.event".to_owned()
}
