//! The scenarios, by what they are about.

mod chaos;
mod crash;
mod dead;
mod delays;
mod handlers;
mod lifecycle;
mod limits;
mod order;
mod parking;
mod processes;
mod publishing;
mod release;
mod replay;
mod retry;
mod routing;
mod selection;

use super::scenario::{Need, Scenario};

macro_rules! scenarios {
    ($($name:literal $([$($need:ident),+])? => $play:path;)+) => {
        /// All of them.
        pub(super) fn all() -> Vec<Scenario> {
            vec![$(Scenario::new($name, &[$($(Need::$need),+)?], |world| Box::pin($play(world)))),+]
        }
    };
}

scenarios! {
    "fan-out" => routing::fan_out;
    "competing consumers" => routing::competing_consumers;
    "wildcards" => routing::wildcards;
    "binding keys add up" => routing::binding_keys_add_up;
    "exchange as a namespace" => routing::namespaces;
    "unrouted receipt" [Routing] => routing::unrouted_receipt;
    "require_route" [Routing] => routing::require_route;
    "publish_batch: order and an error each" => publishing::batch;
    "flush" => publishing::flush;
    "a cancelled publish is not withdrawn" => publishing::cancellation;
    "middleware around publish" => publishing::middleware;
    "an event survives unchanged" => publishing::unchanged;
    "large payloads" => limits::large_payloads;
    "headers up to 64 KiB" => limits::headers;
    "bad input is refused by name" => limits::bad_input;
    "retry with growing delays ends after max_retries" [Delay] => retry::growing_delays;
    "shorter delays overtake longer ones" [Delay] => retry::overtaking;
    "retry policy: retry_on and give_up_on" [Delay] => retry::error_types;
    "retry policy: max_age" [Delay] => retry::max_age;
    "many delayed events" [Delay] => retry::many;
    "dead letter with reason" [Delay] => dead::with_reason;
    "foreign headers survive retry, dead letter and replay" [Delay] => dead::foreign_headers;
    "browse 100 times changes nothing" => dead::browse;
    "undecodable bodies" => dead::undecodable;
    "unsupported content type" => dead::unsupported_content_type;
    "dead letters not wanted" => dead::not_wanted;
    "replay all, ids kept" => replay::all;
    "replay: limit" => replay::limit;
    "replay: rate" => replay::rate;
    "replay: dry run" => replay::dry_run;
    "replay: retry, leave, discard" => replay::decide;
    "replay resumes after an interruption" => replay::resumable;
    "replay_event and replay_all return how many are left" => replay::upstreams_return_values;
    "replay by id" => selection::by_id;
    "replay by binding pattern" => selection::by_pattern;
    "replay by reason" => selection::by_reason;
    "replay by time range" => selection::by_time;
    "replay by predicate" => selection::by_predicate;
    "ordered: a key waits for its retry" [Ordered, Delay] => order::wait;
    "ordered: a key passes its retry" [Ordered, Delay] => order::pass;
    "ordered: one event of a key at a time" [Ordered] => order::one_at_a_time;
    "ordered: partitions" [Ordered] => order::partitions;
    "ordered: release keeps the place" [Ordered] => order::release;
    "ordered: pause and resume" [Ordered] => order::pause;
    "ordered: order after a crash" [Ordered, Crash] => order::crash;
    "ordered: a dead head parks its key until replay" [Ordered] => parking::replay;
    "ordered: discarding a dead head lets its key go on" [Ordered] => parking::discard;
    "ordered: a key goes on without its dead head" [Ordered] => parking::skip;
    "release on drop" => release::on_drop;
    "drain with a deadline" => release::drain;
    "pause and resume" => release::pause;
    "crash of a consumer" [Crash] => crash::redelivery;
    "suspects" [Crash] => crash::suspects;
    "scheduled publish" [Delay] => delays::scheduled;
    "scheduled in the past" [Delay] => delays::past;
    "not routed before it is due" [Delay] => delays::not_before_due;
    "a deleted subscription's delayed events hold nobody up" [Delay] => delays::orphans;
    "two processes: one publishes" [Processes] => processes::publish;
    "two processes: both consume" [Processes] => processes::consume;
    "unknown subscription" => lifecycle::unknown_subscription;
    "conflict of declarations" => lifecycle::conflict;
    "a deleted subscription comes back" => lifecycle::deleted_under_consumer;
    "health tells consuming" => lifecycle::health;
    "metrics add up" => lifecycle::metrics;
    "close twice, then CLOSED" => lifecycle::close;
    "handler time-out" => handlers::timeout;
    "panic isolation" => handlers::panics;
    "concurrency has a bound" => handlers::concurrency;
    "middleware around handlers" => handlers::middleware;
    "at least once under random outcomes" [Delay] => chaos::random_outcomes;
}
