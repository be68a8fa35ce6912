//! What is aimed at, as data, and the table that says of each aim what was measured: met, missed, or not run.

use std::fmt::Write as _;

use crate::results::Record;

/// Where it is told where the time of what missed its aim goes.
const PROFILES: &str = "core/docs/bench/profiles.md";

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
enum Aim {
    /// At least so many times as good as the peer.
    Ratio(f64),
    /// No more than this, in the unit of the work.
    Most(f64),
}

/// One aim. `works` and `peer` are patterns in which a star stands for anything.
struct Target {
    area: &'static str,
    what: &'static str,
    works: &'static str,
    peer: &'static str,
    aim: Aim,
}

const fn ratio(area: &'static str, what: &'static str, works: &'static str, peer: &'static str, aim: f64) -> Target {
    Target { area, what, works, peer, aim: Aim::Ratio(aim) }
}

const fn most(area: &'static str, what: &'static str, works: &'static str, aim: f64) -> Target {
    Target { area, what, works, peer: "*", aim: Aim::Most(aim) }
}

const TARGETS: &[Target] = &[
    ratio("engine", "publish, 1,000 in flight, the best of lapin", "rabbitmq? publish *, 1000 in flight", "*", 0.95),
    ratio("engine", "the same, lapin with the same message", "rabbitmq? publish *, same message", "*", 0.95),
    ratio("engine", "consume, acks multiple", "rabbitmq? consume *, acks multiple", "*", 0.95),
    ratio("engine", "consume, single acks", "rabbitmq? consume *, single acks", "*", 0.95),
    most("engine", "memory of an idle subscriber, MiB", "idle subscriber on *", 15.0),
    ratio("Python", "publish one by one, lapin", "rabbitmq? python one by one: *", "lapin*", 0.9),
    ratio("Python", "the same, lapin with the same message", "rabbitmq? python one by one: *", "same message*", 0.9),
    ratio("Python", "publish in bulk on quorum, aio-pika", "rabbitmq? python publish quorum: *", "aio-pika*", 2.5),
    ratio("Python", "publish in bulk on classic, lapin", "rabbitmq? python publish classic: *", "lapin*", 0.95),
    ratio(
        "Python",
        "the same, lapin with the same message",
        "rabbitmq? python publish classic: *",
        "same message*",
        0.95,
    ),
    ratio(
        "Python",
        "consume on threads, upstream",
        "rabbitmq? python consume *: tidings, *",
        "domain-event-broker*",
        10.0,
    ),
    ratio("Python", "consume on threads, kombu", "rabbitmq? python consume *: tidings, *", "kombu*", 2.5),
    ratio("Python", "consume on threads, aio-pika", "rabbitmq? python consume *: tidings, *", "aio-pika*", 4.0),
    ratio(
        "Python",
        "consume in asyncio, upstream",
        "rabbitmq? python consume *: tidings aio*",
        "domain-event-broker*",
        10.0,
    ),
    ratio("Python", "consume in asyncio, kombu", "rabbitmq? python consume *: tidings aio*", "kombu*", 2.5),
    ratio("Python", "consume in asyncio, aio-pika", "rabbitmq? python consume *: tidings aio*", "aio-pika*", 4.0),
    ratio("Python", "memory when idle, half of faststream's", "rabbitmq? python idle: *", "*", 2.0),
    most("Python", "import, ms of CPU", "python import tidings", 30.0),
    ratio("Node", "publish, the best peer on quorum", "rabbitmq? node publish quorum", "*", 1.0),
    ratio("Node", "publish, the best peer on classic", "rabbitmq? node publish classic", "*", 1.0),
    ratio("Node", "publish, CPU of the JS thread, amqplib", "rabbitmq? node publish *, JS thread", "*", 1.0),
    ratio("Node", "consume, the best peer on quorum", "rabbitmq? node consume quorum", "*", 1.2),
    ratio("Node", "consume, the best peer on classic", "rabbitmq? node consume classic", "*", 1.2),
    ratio(
        "Node",
        "consume, delay of the event loop, amqplib",
        "rabbitmq? node consume *, delay of the event loop p99",
        "*",
        1.0,
    ),
    most("Node", "require, ms of CPU", "node require, beside bare Node", 25.0),
    ratio(
        "outbox",
        "commit to confirmed, a loop by hand",
        "rabbitmq? outbox, commit *: tidings, no order (pass)",
        "by hand*",
        0.9,
    ),
    ratio(
        "outbox",
        "the same with order per key",
        "rabbitmq? outbox, commit *: tidings, order per key",
        "by hand*",
        0.9,
    ),
    ratio("outbox", "commit to confirmed, faststream-outbox", "rabbitmq? outbox, commit *", "faststream-outbox*", 8.0),
    ratio(
        "outbox",
        "commit to confirmed, pg-transactional-outbox",
        "rabbitmq? outbox, commit *",
        "pg-transactional*",
        8.0,
    ),
    most("outbox", "commit to handler at 200/s, p50 in ms", "rabbitmq? outbox latency at 200/s, p50", 5.0),
    most("outbox", "commit to handler at 200/s, p99 in ms", "rabbitmq? outbox latency at 200/s, p99", 25.0),
    most("outbox", "a million rows that wait, slower by", "rabbitmq? outbox, * rows wait: *", 1.25),
    ratio("order", "consume ordered, the same without order", "rabbitmq? ordered *, 10,000 keys, 1 ms", "*", 0.8),
    ratio("order", "relay with order, the same without", "rabbitmq? outbox, commit *", "tidings, no order*", 0.7),
];

impl Target {
    fn of(&self, record: &Record) -> bool {
        is_like(&record.work, self.works) && is_like(record.peer_name.as_deref().unwrap_or(""), self.peer)
    }

    /// The figure that the aim is about, and whether it is met.
    fn judge(&self, record: &Record) -> Option<(f64, bool)> {
        match self.aim {
            Aim::Ratio(least) => record.ratio.map(|ratio| (ratio, ratio >= least)),
            Aim::Most(limit) => Some((record.ours, record.ours <= limit)),
        }
    }

    /// A line of the table: area, what, aim, measured, verdict.
    fn line(&self, records: &[Record]) -> [String; 5] {
        let judged: Vec<(f64, bool)> = records.iter().filter(|r| self.of(r)).filter_map(|r| self.judge(r)).collect();
        let figures = judged.iter().map(|(figure, _)| *figure);
        let (low, high) = (figures.clone().fold(f64::MAX, f64::min), figures.fold(f64::MIN, f64::max));
        let missed = judged.iter().filter(|(_, met)| !met).count();
        let measured = match judged.len() {
            0 => String::new(),
            1 => format!("{low:.2}"),
            all => format!("{low:.2}–{high:.2} in {all} works"),
        };
        let verdict = match (judged.len(), missed) {
            (0, _) => "not run".to_owned(),
            (_, 0) => "met".to_owned(),
            (1, _) => format!("missed ({PROFILES})"),
            (all, missed) => format!("missed in {missed} of {all} ({PROFILES})"),
        };
        let aim = match self.aim {
            Aim::Ratio(least) => format!("≥ {least}"),
            Aim::Most(limit) => format!("≤ {limit}"),
        };
        [self.area.to_owned(), self.what.to_owned(), aim, measured, verdict]
    }
}

/// The table, a line for each aim, for people and in Markdown.
pub(crate) fn table(records: &[Record]) -> String {
    let mut text = "| area | aim | | measured | |\n|---|---|---:|---:|---|\n".to_owned();
    for target in TARGETS {
        let [area, what, aim, measured, verdict] = target.line(records);
        let _infallible = writeln!(text, "| {area} | {what} | {aim} | {measured} | {verdict} |");
    }
    text
}

/// Whether a text is like a pattern: a star stands for anything, a question mark for one character.
fn is_like(text: &str, pattern: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return text.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    if first == '*' {
        let tails = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        return tails.into_iter().any(|at| is_like(&text[at..], rest));
    }
    let Some(next) = text.chars().next() else { return false };
    (first == '?' || first == next) && is_like(&text[next.len_utf8()..], rest)
}

#[cfg(test)]
mod tests {
    use super::{TARGETS, is_like, table};
    use crate::results::Record;

    #[test]
    fn a_pattern_is_like_what_it_stands_for() {
        assert!(is_like("rabbitmq3 publish quorum, 1000 in flight", "rabbitmq? publish *, 1000 in flight"));
        assert!(!is_like(
            "rabbitmq3 publish quorum, 1000 in flight, same message",
            "rabbitmq? publish *, 1000 in flight"
        ));
        assert!(!is_like("rabbitmq3 node publish quorum", "rabbitmq? publish *"));
        assert!(is_like("", "*") && !is_like("a", ""));
    }

    #[test]
    fn every_aim_is_met_missed_or_not_run() {
        let of = |work: &str, ratio| Record::of(work, "events/s", 1.0, Some(("lapin", 1.0)), Some(ratio));
        let records = [
            of("rabbitmq3 consume quorum, single acks", 1.1),
            of("rabbitmq3 consume quorum, acks multiple", 0.9),
            of("rabbitmq4 consume quorum, acks multiple", 1.0),
        ];
        let table = table(&records);
        let line = |what: &str| table.lines().find(|line| line.contains(what)).unwrap_or_default().to_owned();
        assert!(line("consume, single acks").ends_with("| 1.10 | met |"));
        assert!(line("consume, acks multiple").contains("| 0.90–1.00 in 2 works | missed in 1 of 2 ("));
        assert!(line("lapin with the same message").contains("not run"));
        assert_eq!(table.lines().count(), TARGETS.len() + 2);
    }
}
